// Package config is the settings: read once from the environment, with all faults reported together.
package config

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/sethvargo/go-envconfig"

	"fallback/functions/topology"
)

// Config is every setting. What else there is to say of one stands in the table, by its name.
type Config struct {
	AMQPServerURL Secret `env:"AMQP_SERVER_URL"`
	ManagementURL Secret `env:"RABBITMQ_MANAGEMENT_URL"`
	Queue         string `env:"FALLBACK_QUEUE"`
	Message       string `env:"FALLBACK_MESSAGE"`

	Addr           string        `env:"FALLBACK_ADDR"`
	PathPrefix     string        `env:"FALLBACK_PATH_PREFIX"`
	Methods        []string      `env:"FALLBACK_METHODS"`
	MaxBodyBytes   int64         `env:"FALLBACK_MAX_BODY_BYTES"`
	MaxHeaderBytes int           `env:"FALLBACK_MAX_HEADER_BYTES"`
	Timeout        time.Duration `env:"FALLBACK_TIMEOUT"`
	MaxInFlight    int           `env:"FALLBACK_MAX_IN_FLIGHT"`
	MaxBytesInHand int64         `env:"FALLBACK_MAX_BYTES_IN_HAND"`
	RateLimit      float64       `env:"FALLBACK_RATE_LIMIT"`

	Tokens         []Secret `env:"FALLBACK_TOKENS"`
	WebhookSecrets []Secret `env:"FALLBACK_WEBHOOK_SECRETS"`
	AcceptReplays  []Secret `env:"FALLBACK_ACCEPT_REPLAYS"`
	TrustedProxies []string `env:"FALLBACK_TRUSTED_PROXIES"`
	CORSOrigins    []string `env:"FALLBACK_CORS_ORIGINS"`

	TargetURL     Secret        `env:"FALLBACK_TARGET_URL"`
	ProbePath     string        `env:"FALLBACK_PROBE_PATH"`
	TargetTimeout time.Duration `env:"FALLBACK_TARGET_TIMEOUT"`
	ReplaySecret  Secret        `env:"FALLBACK_REPLAY_SECRET"`
	Schedule      string        `env:"FALLBACK_DRAIN_SCHEDULE"`
	DrainAddr     string        `env:"FALLBACK_DRAIN_ADDR"`
	Window        time.Duration `env:"FALLBACK_DRAIN_WINDOW"`
	DrainRate     float64       `env:"FALLBACK_DRAIN_RATE"`
	Concurrency   int           `env:"FALLBACK_DRAIN_CONCURRENCY"`
	MaxAttempts   int           `env:"FALLBACK_MAX_ATTEMPTS"`
	MaxAge        time.Duration `env:"FALLBACK_MAX_AGE"`
	Stale         string        `env:"FALLBACK_STALE"`

	LogLevel  slog.Level `env:"LOG_LEVEL"`
	LogFormat string     `env:"LOG_FORMAT"`

	// Topology follows from Queue, VHost from AMQPServerURL, Proxies from TrustedProxies.
	Topology topology.Topology
	VHost    string
	Proxies  []netip.Prefix
	// Strays are known to [Environ.Load] only.
	Strays []Stray
}

// Lookup finds a variable: os.LookupEnv, or a map in a test.
type Lookup func(name string) (string, bool)

// Load reads all settings. A variable that is set to nothing counts as not set. The error names every fault at once,
// and no value of a secret; needs are the variables that must be set.
func Load(lookup Lookup, needs ...string) (Config, error) {
	return together(read(lookup, needs))
}

// read has the library read again and again what is not at fault yet: by itself, it stops at the first fault.
func read(lookup Lookup, needs []string) (c Config, faults []error) {
	for _, name := range needs {
		if v, _ := lookup(name); v == "" {
			faults = append(faults, wrong(name, "not set"))
		}
	}
	from := reader{lookup: lookup, unread: map[string]bool{}}
	for {
		err := envconfig.ProcessWith(context.Background(),
			&envconfig.Config{Target: &c, Lookuper: &from, DefaultOverwrite: true})
		if err == nil {
			break
		}
		value, _ := lookup(from.last)
		faults = append(faults, wrong(from.last, "cannot read %q (%s)", value, find(from.last).Unit))
		from.unread[from.last] = true
	}
	for _, s := range settings {
		if s.check != nil && !from.unread[s.Name] {
			for _, err := range parts(s.check(&c)) {
				faults = append(faults, wrong(s.Name, "%w", err))
			}
		}
	}
	return c, faults
}

// together is the settings, or all their faults as one error.
func together(c Config, faults []error) (Config, error) {
	if len(faults) > 0 {
		return Config{}, fmt.Errorf("settings:\n%w", errors.Join(faults...))
	}
	return c, nil
}

// reader is a Lookup as the library knows it. What is not set, set to nothing, or could not be read, is the default.
type reader struct {
	lookup Lookup
	unread map[string]bool
	last   string // what the library has asked for last
}

func (r *reader) Lookup(name string) (string, bool) {
	r.last = name
	if v, _ := r.lookup(name); v != "" && !r.unread[name] {
		return v, true
	}
	value := find(name).Default
	return value, value != ""
}

// parts are those of a joined error.
func parts(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
