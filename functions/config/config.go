// Package config is the settings: read once from the environment, with all faults reported together.
package config

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/sethvargo/go-envconfig"

	"fallback/functions/topology"
)

// Config is every setting. The tags are the one place where a setting's name, default and meaning stand: the program
// reads them, and the table in the README is made from them.
type Config struct {
	AMQPServerURL Secret `env:"AMQP_SERVER_URL" about:"The broker, with user and password: amqp://user:password@host:5672/ or amqps://. Percent-encode what is special in a URL."`
	ManagementURL Secret `env:"RABBITMQ_MANAGEMENT_URL" about:"The broker's management API with the monitor's password: http://user:password@host:15672. With it, /readyz can tell a classic queue from a quorum queue, and fallback queues and the worker's /metrics show every queue."`
	Queue         string `env:"FALLBACK_QUEUE, default=FallbackAPIQueue" about:"The queue. The parked and retry queues, policies and permissions take their names from it."`
	Message       string `env:"FALLBACK_MESSAGE, default=A request has been sent via fallback API" about:"The message body for a request that has none."`

	Addr           string        `env:"FALLBACK_ADDR, default=:8080" about:"Where the server listens: host:port. Without a host, on every address."`
	PathPrefix     string        `env:"FALLBACK_PATH_PREFIX, default=/fallback" about:"What is taken off the path before it is stored; / captures every path. A function's own route is its prefix, so this is for the server."`
	Methods        []string      `env:"FALLBACK_METHODS, default=POST,PUT,PATCH,DELETE" about:"The methods that are queued, separated by commas. Others get a 503: their clients need the primary's answer."`
	MaxBodyBytes   int64         `env:"FALLBACK_MAX_BODY_BYTES, default=1048576" about:"Bytes a body may have, at most 16777216 (RabbitMQ's own limit)."`
	MaxHeaderBytes int           `env:"FALLBACK_MAX_HEADER_BYTES, default=65536" about:"Bytes that the request line and headers may take in the message, at most 122880 (they must fit into one AMQP frame)."`
	Timeout        time.Duration `env:"FALLBACK_TIMEOUT, default=5s" about:"The longest that a request waits for its answer. A fifth of it, at most 1s, is kept for the broker: the body must have come before."`
	MaxInFlight    int           `env:"FALLBACK_MAX_IN_FLIGHT, default=1024" about:"Requests that wait for the broker at the same time; more get a 503 at once."`
	MaxBytesInHand int64         `env:"FALLBACK_MAX_BYTES_IN_HAND, default=50331648" about:"Bytes that bodies take at the same time, those on their way in by what has come, up to four times as much; more get a 503. An eighth of it is for those of strangers, whose signature is not checked yet."`
	RateLimit      float64       `env:"FALLBACK_RATE_LIMIT, default=0" about:"Requests a second that are taken, in bursts of as many; more get a 429. 0 is no limit."`

	Tokens         []Secret `env:"FALLBACK_TOKENS" about:"Tokens, separated by commas. If set, a request needs one of them: Fallback-Authorization: Bearer TOKEN, or Authorization: Bearer TOKEN, or in the path, /fallback/-/TOKEN/... They are never stored. To change one, list both for a while."`
	WebhookSecrets []Secret `env:"FALLBACK_WEBHOOK_SECRETS" about:"Secrets of Standard Webhooks (whsec_...), separated by commas. If set, a request signed with one of them is let in (webhook-signature, or svix-signature)."`
	AcceptReplays  []Secret `env:"FALLBACK_ACCEPT_REPLAYS" about:"For a second Fallback behind a first: the first one's FALLBACK_REPLAY_SECRET (whsec_...). Its replays are let in by their signature alone and keep their id. Any other replay is refused with 508: it would be a loop."`
	TrustedProxies []string `env:"FALLBACK_TRUSTED_PROXIES, default=127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7" about:"Whose X-Forwarded-* and Forwarded are kept, as addresses or CIDRs, separated by commas; none for nobody. Those of others are replaced by what the door saw. On a platform, the platform's are kept."`
	CORSOrigins    []string `env:"FALLBACK_CORS_ORIGINS" about:"Origins whose pages may send anything from a browser and read the answers, separated by commas: https://shop.example.com; * for all. Other pages may send what a form can."`

	TargetURL     Secret        `env:"FALLBACK_TARGET_URL" about:"The primary's base URL, for the drain: https://api.example.com. Without it the drain idles."`
	ProbePath     string        `env:"FALLBACK_PROBE_PATH, default=/" about:"What the drain asks the primary for (GET), behind the base URL, to see whether it is alive: any answer under 500 says so."`
	TargetTimeout time.Duration `env:"FALLBACK_TARGET_TIMEOUT, default=30s" about:"The longest that a replay waits for the primary's answer."`
	ReplaySecret  Secret        `env:"FALLBACK_REPLAY_SECRET" about:"If set (whsec_...), replays are signed with it: Fallback-Signature."`
	Schedule      string        `env:"FALLBACK_DRAIN_SCHEDULE, default=1m" about:"When the drain runs: an interval of at least 1s (1m), or a cron expression in UTC (0 3 * * *)."`
	DrainAddr     string        `env:"FALLBACK_DRAIN_ADDR, default=:8081" about:"Where the drain's worker says whether it is well, and what it has done: /livez, /readyz and /metrics."`
	Window        time.Duration `env:"FALLBACK_DRAIN_WINDOW, default=1h" about:"How long one run of the worker or a function may take. One that finds the primary down asks again until then."`
	DrainRate     float64       `env:"FALLBACK_DRAIN_RATE, default=0" about:"Replays a second, at most. 0 is no limit."`
	Concurrency   int           `env:"FALLBACK_DRAIN_CONCURRENCY, default=8" about:"Replays in flight, at most. It begins with one, and goes back when the primary is in trouble."`
	MaxAttempts   int           `env:"FALLBACK_MAX_ATTEMPTS, default=8" about:"Replays of a request that fails by itself (500, time-out) before it is parked."`
	MaxAge        time.Duration `env:"FALLBACK_MAX_AGE, default=0s" about:"Requests received, or redriven, longer ago are treated as FALLBACK_STALE says. 0s is no limit."`
	Stale         string        `env:"FALLBACK_STALE, default=deliver" about:"What becomes of them: deliver, park or drop."`

	LogLevel  slog.Level `env:"LOG_LEVEL, default=info" about:"debug, info, warn or error."`
	LogFormat string     `env:"LOG_FORMAT, default=auto" about:"json, text, or auto: text on a terminal, else JSON."`

	// Topology follows from Queue, VHost from AMQPServerURL, Proxies from TrustedProxies.
	Topology topology.Topology
	VHost    string
	Proxies  []netip.Prefix
	// Strays are known to [Environ.Load] only.
	Strays []Stray
}

// Secret is a value that no log, error or print shows.
type Secret string

// Reveal is the value itself.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string { return "(hidden)" }

// GoString keeps %#v from showing it.
func (s Secret) GoString() string { return s.String() }

// LogValue keeps slog from showing it.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText keeps encoders from showing it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Lookup finds a variable: os.LookupEnv, or a map in a test.
type Lookup func(name string) (string, bool)

// Load reads all settings. A variable that is set to nothing counts as not set. The error names every fault at once, and
// no value of a secret; needs are the variables that must be set.
func Load(lookup Lookup, needs ...string) (Config, error) {
	return together(read(lookup, needs))
}

func read(lookup Lookup, needs []string) (c Config, faults []error) {
	for _, name := range needs {
		if v, _ := lookup(name); v == "" {
			faults = append(faults, wrong(name, "not set"))
		}
	}
	unread := map[string]bool{}
	v := reflect.ValueOf(&c).Elem()
	for i := range v.NumField() {
		if field := v.Type().Field(i); field.Tag.Get("env") != "" {
			if err := process(lookup, field, v.Field(i)); err != nil {
				faults = append(faults, err)
				unread[name(field)] = true
			}
		}
	}
	return c, append(faults, c.check(unread)...)
}

// together is the settings, or all their faults as one error.
func together(c Config, faults []error) (Config, error) {
	if len(faults) > 0 {
		return Config{}, fmt.Errorf("settings:\n%w", errors.Join(faults...))
	}
	return c, nil
}

// process reads one setting, so that one fault does not hide the next.
func process(lookup Lookup, field reflect.StructField, into reflect.Value) error {
	one := reflect.New(reflect.StructOf([]reflect.StructField{field}))
	err := envconfig.ProcessWith(context.Background(), &envconfig.Config{
		Target:   one.Interface(),
		Lookuper: lookuper(lookup),
	})
	if err != nil {
		value, _ := lookup(name(field))
		return wrong(name(field), "cannot read %q as a %s", value, kind(field.Type))
	}
	into.Set(one.Elem().Field(0))
	return nil
}

// name is the variable of a setting.
func name(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("env"), ",")
	return name
}

// lookuper is a Lookup in the library's form, in which nothing is the same as not set.
type lookuper Lookup

func (l lookuper) Lookup(name string) (string, bool) {
	v, _ := l(name)
	return v, v != ""
}

// mostPerSecond is past what any of this could keep count of; infinity is no rate to reckon with.
const mostPerSecond = 1_000_000

// check finds the faults that single types do not, and fills in what is derived. What could not be read has been
// reported already.
func (c *Config) check(unread map[string]bool) []error {
	var faults []error
	fault := func(name, format string, args ...any) {
		if !unread[name] {
			faults = append(faults, wrong(name, format, args...))
		}
	}

	if c.AMQPServerURL != "" {
		u, err := brokerURL(c.AMQPServerURL)
		if err != nil {
			fault("AMQP_SERVER_URL", "%w", err)
		} else if c.VHost = strings.TrimPrefix(u.Path, "/"); c.VHost == "" {
			c.VHost = topology.VHost
		}
	}
	if err := checkHTTP(c.ManagementURL); err != nil {
		fault("RABBITMQ_MANAGEMENT_URL", "%w", err)
	}
	if err := checkHTTP(c.TargetURL); err != nil {
		fault("FALLBACK_TARGET_URL", "%w", err)
	}
	if err := checkAddress(c.Addr); err != nil {
		fault("FALLBACK_ADDR", "%w", err)
	}
	if err := checkAddress(c.DrainAddr); err != nil {
		fault("FALLBACK_DRAIN_ADDR", "%w", err)
	}
	var err error
	if c.Topology, err = topology.Of(c.Queue); err != nil {
		fault("FALLBACK_QUEUE", "%w", err)
	}
	if !strings.HasPrefix(c.PathPrefix, "/") || strings.ContainsAny(c.PathPrefix, "?# ") {
		fault("FALLBACK_PATH_PREFIX", "%q is not a path that begins with /", c.PathPrefix)
	}
	if c.PathPrefix != "/" {
		c.PathPrefix = strings.TrimRight(c.PathPrefix, "/")
	}
	for i, m := range c.Methods {
		if c.Methods[i] = strings.ToUpper(strings.TrimSpace(m)); c.Methods[i] == "" {
			fault("FALLBACK_METHODS", "a method is empty")
		}
	}
	between := func(name string, got, least, most int64) {
		if got < least || got > most {
			fault(name, "%d is not between %d and %d", got, least, most)
		}
	}
	between("FALLBACK_MAX_BODY_BYTES", c.MaxBodyBytes, 1, 16<<20)
	between("FALLBACK_MAX_HEADER_BYTES", int64(c.MaxHeaderBytes), 1<<10, 120<<10)
	between("FALLBACK_MAX_IN_FLIGHT", int64(c.MaxInFlight), 1, 1<<16)
	between("FALLBACK_MAX_BYTES_IN_HAND", c.MaxBytesInHand, c.MaxBodyBytes, 1<<40)
	if c.Timeout < 100*time.Millisecond || c.Timeout > 10*time.Minute {
		fault("FALLBACK_TIMEOUT", "%s is not between 100ms and 10m", c.Timeout)
	}
	if !(c.RateLimit >= 0 && c.RateLimit <= mostPerSecond) { // NaN is neither
		fault("FALLBACK_RATE_LIMIT", "%v is not between 0 and %d", c.RateLimit, mostPerSecond)
	}
	if slices.Contains(c.Tokens, "") {
		fault("FALLBACK_TOKENS", "a token is empty")
	}
	for i, secret := range c.WebhookSecrets {
		if err := checkWebhookSecret(secret); err != nil {
			fault("FALLBACK_WEBHOOK_SECRETS", "number %d %w", i+1, err)
		}
	}
	for i, secret := range c.AcceptReplays {
		if err := checkWebhookSecret(secret); err != nil {
			fault("FALLBACK_ACCEPT_REPLAYS", "number %d %w", i+1, err)
		}
	}
	for _, proxy := range c.TrustedProxies {
		prefix, err := parseProxy(strings.TrimSpace(proxy))
		switch {
		case proxy == "none" && len(c.TrustedProxies) == 1:
		case err != nil:
			fault("FALLBACK_TRUSTED_PROXIES", "%q is neither an address nor a CIDR, nor none alone", proxy)
		default:
			c.Proxies = append(c.Proxies, prefix)
		}
	}
	for i, origin := range c.CORSOrigins {
		if c.CORSOrigins[i] = strings.TrimSpace(origin); !isOrigin(c.CORSOrigins[i]) {
			fault("FALLBACK_CORS_ORIGINS", "%q is neither an origin as a browser sends it, in lower case and without a path, nor *", origin)
		}
	}
	if _, err := url.Parse(c.ProbePath); err != nil || !strings.HasPrefix(c.ProbePath, "/") || strings.HasPrefix(c.ProbePath, "//") || strings.Contains(c.ProbePath, "#") {
		fault("FALLBACK_PROBE_PATH", "%q is not a path that begins with one /, without a #", c.ProbePath)
	}
	if c.ReplaySecret != "" {
		if err := checkWebhookSecret(c.ReplaySecret); err != nil {
			fault("FALLBACK_REPLAY_SECRET", "it %w", err)
		}
	}
	if c.TargetTimeout < 100*time.Millisecond || c.TargetTimeout > 10*time.Minute {
		fault("FALLBACK_TARGET_TIMEOUT", "%s is not between 100ms and 10m", c.TargetTimeout)
	}
	if every, err := time.ParseDuration(c.Schedule); err == nil {
		if every < time.Second {
			fault("FALLBACK_DRAIN_SCHEDULE", "%s is less than 1s", every)
		}
	} else if err := checkCron(c.Schedule); err != nil {
		fault("FALLBACK_DRAIN_SCHEDULE", "%q is neither an interval (1m) nor a cron expression in UTC (0 3 * * *): %w", c.Schedule, err)
	}
	if c.Window < time.Second {
		fault("FALLBACK_DRAIN_WINDOW", "%s is less than 1s", c.Window)
	}
	if !(c.DrainRate >= 0 && c.DrainRate <= mostPerSecond) {
		fault("FALLBACK_DRAIN_RATE", "%v is not between 0 and %d", c.DrainRate, mostPerSecond)
	}
	between("FALLBACK_DRAIN_CONCURRENCY", int64(c.Concurrency), 1, 1000)
	between("FALLBACK_MAX_ATTEMPTS", int64(c.MaxAttempts), 1, 1000)
	if c.MaxAge < 0 {
		fault("FALLBACK_MAX_AGE", "%s is negative", c.MaxAge)
	}
	if !slices.Contains([]string{"deliver", "park", "drop"}, c.Stale) {
		fault("FALLBACK_STALE", "%q is not one of deliver, park, drop", c.Stale)
	}
	if !slices.Contains([]string{"auto", "json", "text"}, c.LogFormat) {
		fault("LOG_FORMAT", "%q is not one of auto, json, text", c.LogFormat)
	}
	return faults
}

// checkWebhookSecret holds that a secret is one of Standard Webhooks, and not the empty one, with which anybody could sign.
func checkWebhookSecret(s Secret) error {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s.Reveal(), "whsec_"))
	switch {
	case err != nil:
		return errors.New("is not base64 behind whsec_")
	case len(key) == 0:
		return errors.New("is empty")
	}
	return nil
}

// parseProxy reads an address or a CIDR.
func parseProxy(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		addr = addr.Unmap().WithZone("")
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err == nil && p.Addr().Is4In6() && p.Bits() >= 96 { // peers are compared as IPv4, too
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, err
}

// isOrigin says whether a browser could send s as the Origin of a page (RFC 6454, 6.2), or it is the one for all.
func isOrigin(s string) bool {
	u, err := url.Parse(s)
	if err != nil {
		return false
	}
	standard := map[string]string{"http": "80", "https": "443"}[u.Scheme] // which browsers leave out
	return s == "*" || standard != "" && u.Host != "" && u.Port() != standard && s == strings.ToLower(u.Scheme+"://"+u.Host)
}
