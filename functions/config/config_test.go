package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// environment is a Lookup in a map.
func environment(variables map[string]string) Lookup {
	return func(name string) (string, bool) { v, ok := variables[name]; return v, ok }
}

func load(t *testing.T, variables map[string]string) Config {
	t.Helper()
	c, err := Load(environment(variables))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c := load(t, nil)
	for _, row := range []struct {
		name      string
		got, want any
	}{
		{"AMQP_SERVER_URL", c.AMQPServerURL.Reveal(), ""},
		{"RABBITMQ_MANAGEMENT_URL", c.ManagementURL.Reveal(), ""},
		{"FALLBACK_QUEUE", c.Queue, "FallbackAPIQueue"},
		{"FALLBACK_MESSAGE", c.Message, "A request has been sent via fallback API"},
		{"FALLBACK_ADDR", c.Addr, ":8080"},
		{"FALLBACK_PATH_PREFIX", c.PathPrefix, "/fallback"},
		{"FALLBACK_METHODS", c.Methods, []string{"POST", "PUT", "PATCH", "DELETE"}},
		{"FALLBACK_MAX_BODY_BYTES", c.MaxBodyBytes, int64(1 << 20)},
		{"FALLBACK_MAX_HEADER_BYTES", c.MaxHeaderBytes, 64 << 10},
		{"FALLBACK_TIMEOUT", c.Timeout, 5 * time.Second},
		{"FALLBACK_MAX_IN_FLIGHT", c.MaxInFlight, 1024},
		{"FALLBACK_MAX_BYTES_IN_HAND", c.MaxBytesInHand, int64(48 << 20)},
		{"FALLBACK_RATE_LIMIT", c.RateLimit, 0.0},
		{"FALLBACK_TOKENS", len(c.Tokens), 0},
		{"FALLBACK_WEBHOOK_SECRETS", len(c.WebhookSecrets), 0},
		{"FALLBACK_ACCEPT_REPLAYS", len(c.AcceptReplays), 0},
		{"FALLBACK_TRUSTED_PROXIES", fmt.Sprint(c.Proxies),
			"[127.0.0.0/8 ::1/128 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7]"},
		{"FALLBACK_CORS_ORIGINS", len(c.CORSOrigins), 0},
		{"FALLBACK_TARGET_URL", c.TargetURL.Reveal(), ""},
		{"FALLBACK_PROBE_PATH", c.ProbePath, "/"},
		{"FALLBACK_TARGET_TIMEOUT", c.TargetTimeout, 30 * time.Second},
		{"FALLBACK_REPLAY_SECRET", c.ReplaySecret.Reveal(), ""},
		{"FALLBACK_DRAIN_SCHEDULE", c.Schedule, "1m"},
		{"FALLBACK_DRAIN_ADDR", c.DrainAddr, ":8081"},
		{"FALLBACK_DRAIN_WINDOW", c.Window, time.Hour},
		{"FALLBACK_DRAIN_RATE", c.DrainRate, 0.0},
		{"FALLBACK_DRAIN_CONCURRENCY", c.Concurrency, 8},
		{"FALLBACK_MAX_ATTEMPTS", c.MaxAttempts, 8},
		{"FALLBACK_MAX_AGE", c.MaxAge, time.Duration(0)},
		{"FALLBACK_STALE", c.Stale, "deliver"},
		{"LOG_LEVEL", c.LogLevel, slog.LevelInfo},
		{"LOG_FORMAT", c.LogFormat, "auto"},
		{"the topology's main queue", c.Topology.Main, "FallbackAPIQueue"},
	} {
		if diff := cmp.Diff(row.want, row.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	c := load(t, map[string]string{
		"AMQP_SERVER_URL":          "amqps://user:p%40ss@broker.example.com:5671/orders",
		"RABBITMQ_MANAGEMENT_URL":  "https://monitor:secret@broker.example.com:15671",
		"FALLBACK_QUEUE":           "orders",
		"FALLBACK_PATH_PREFIX":     "/door/",
		"FALLBACK_METHODS":         " post , Purge",
		"FALLBACK_MAX_BODY_BYTES":  "16777216",
		"FALLBACK_TIMEOUT":         "750ms",
		"FALLBACK_RATE_LIMIT":      "2.5",
		"FALLBACK_TOKENS":          "one,two",
		"FALLBACK_WEBHOOK_SECRETS": "whsec_YQ==",
		"FALLBACK_ACCEPT_REPLAYS":  "whsec_YQ==,whsec_Yg==",
		"FALLBACK_TRUSTED_PROXIES": "203.0.113.7, 198.51.100.0/24,::ffff:192.0.2.0/120",
		"FALLBACK_CORS_ORIGINS":    "https://shop.example.com, http://localhost:3000",
		"LOG_LEVEL":                "debug",
		"LOG_FORMAT":               "json",
	})
	for _, row := range []struct {
		name      string
		got, want any
	}{
		{"URL", c.AMQPServerURL.Reveal(), "amqps://user:p%40ss@broker.example.com:5671/orders"},
		{"virtual host", c.VHost, "orders"},
		{"parked queue", c.Topology.Parked, "orders.parked"},
		{"prefix without the slash at its end", c.PathPrefix, "/door"},
		{"methods as HTTP writes them", c.Methods, []string{"POST", "PURGE"}},
		{"body", c.MaxBodyBytes, int64(16 << 20)},
		{"timeout", c.Timeout, 750 * time.Millisecond},
		{"rate", c.RateLimit, 2.5},
		{"tokens", []string{c.Tokens[0].Reveal(), c.Tokens[1].Reveal()}, []string{"one", "two"}},
		{"webhook secret", c.WebhookSecrets[0].Reveal(), "whsec_YQ=="},
		{"replays", c.AcceptReplays[1].Reveal(), "whsec_Yg=="},
		{"proxies", fmt.Sprint(c.Proxies), "[203.0.113.7/32 198.51.100.0/24 192.0.2.0/24]"},
		{"origins", c.CORSOrigins, []string{"https://shop.example.com", "http://localhost:3000"}},
		{"level", c.LogLevel, slog.LevelDebug},
		{"format", c.LogFormat, "json"},
	} {
		if diff := cmp.Diff(row.want, row.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
}

func TestVHost(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ url, want string }{
		{"amqp://u:p@h", "/"},
		{"amqp://u:p@h/", "/"},
		{"amqp://u:p@h/%2F", "/"},
		{"amqp://u:p@h/orders", "orders"},
		{"amqp://u:p@h/a%2Fb", "a/b"},
	} {
		if got := load(t, map[string]string{"AMQP_SERVER_URL": row.url}).VHost; got != row.want {
			t.Errorf("%s: got %q, want %q", row.url, got, row.want)
		}
	}
}

// TestEmptyIsUnset holds that a line "NAME=" in an env file is as good as none.
func TestEmptyIsUnset(t *testing.T) {
	t.Parallel()
	empty := map[string]string{}
	for _, s := range Settings() {
		empty[s.Name] = ""
	}
	if len(empty) == 0 {
		t.Fatal("there are no settings")
	}
	if diff := cmp.Diff(load(t, nil), load(t, empty),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("-unset +empty:\n%s", diff)
	}
	if _, err := Load(environment(empty), "AMQP_SERVER_URL"); err == nil ||
		!strings.Contains(err.Error(), "AMQP_SERVER_URL: not set") {
		t.Errorf("a variable that is needed and empty: got %v", err)
	}
}

// TestFaultsTogether holds that one start shows all that is to be mended, each fault with the variable's name.
func TestFaultsTogether(t *testing.T) {
	t.Parallel()
	faults := map[string]string{
		"RABBITMQ_MANAGEMENT_URL":    "amqp://h",
		"FALLBACK_QUEUE":             "amq.mine",
		"FALLBACK_ADDR":              "8080",
		"FALLBACK_DRAIN_ADDR":        "127.0.0.1",
		"FALLBACK_PATH_PREFIX":       "fallback",
		"FALLBACK_METHODS":           "POST,,PUT",
		"FALLBACK_MAX_BODY_BYTES":    "a lot",
		"FALLBACK_MAX_HEADER_BYTES":  "200000",
		"FALLBACK_TIMEOUT":           "5",
		"FALLBACK_MAX_IN_FLIGHT":     "0",
		"FALLBACK_MAX_BYTES_IN_HAND": "-1",
		"FALLBACK_RATE_LIMIT":        "-1",
		"FALLBACK_TOKENS":            "a,,b",
		"FALLBACK_WEBHOOK_SECRETS":   "whsec_YWJj,",
		"FALLBACK_TARGET_URL":        "api.example.com",
		"FALLBACK_PROBE_PATH":        "health",
		"FALLBACK_TARGET_TIMEOUT":    "1ms",
		"FALLBACK_REPLAY_SECRET":     "whsec_!",
		"FALLBACK_DRAIN_SCHEDULE":    "1ms",
		"FALLBACK_DRAIN_WINDOW":      "0s",
		"FALLBACK_DRAIN_RATE":        "-1",
		"FALLBACK_DRAIN_CONCURRENCY": "0",
		"FALLBACK_MAX_ATTEMPTS":      "0",
		"FALLBACK_MAX_AGE":           "-1s",
		"FALLBACK_STALE":             "forget",
		"LOG_LEVEL":                  "loud",
		"LOG_FORMAT":                 "xml",
	}
	_, err := Load(environment(faults), "AMQP_SERVER_URL")
	if err == nil {
		t.Fatal("no fault was found")
	}
	for name := range faults {
		_, fault, found := strings.Cut(err.Error(), "\n"+name+": ")
		if !found {
			t.Errorf("%s=%s: not among the faults", name, faults[name])
		}
		if fault, _, _ = strings.Cut(fault, "\n"); !strings.HasSuffix(fault, "; for example "+Example(name)) {
			t.Errorf("%s=%s: no example of what is right in %q", name, faults[name], fault)
		}
	}
	if !strings.Contains(err.Error(), "\nAMQP_SERVER_URL: not set") {
		t.Error("AMQP_SERVER_URL: not among the faults")
	}
	if t.Failed() {
		t.Logf("got:\n%v", err)
	}
}

// TestFault holds each bound alone, at it and past it.
func TestFault(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, value string
		ok          bool
	}{
		{"AMQP_SERVER_URL", "amqps://h", true},
		{"AMQP_SERVER_URL", "http://h", false},
		{"AMQP_SERVER_URL", "amqp://", false},
		{"AMQP_SERVER_URL", "amqp://user:12/34@h/", false},
		{"AMQP_SERVER_URL", "amqp://user:12?34@h/", false},
		{"AMQP_SERVER_URL", "amqp://user:12#34@h/", false},
		{"AMQP_SERVER_URL", "amqp://user:12@34/x@h/", false},
		{"RABBITMQ_MANAGEMENT_URL", "http://user:12/34@h:15672", false},
		{"FALLBACK_TARGET_URL", "http://user:12/34@h", false},
		{"FALLBACK_TARGET_URL", "https://h/@scope", true},
		{"FALLBACK_PROBE_PATH", "//h/", false},
		{"AMQP_SERVER_URL", "localhost:5672", false},
		{"AMQP_SERVER_URL", "amqps://h/?heartbeat=30&channel_max=9&auth_mechanism=plain&cacertfile=a&certfile=b&keyfile=c&server_name_indication=d", true},
		{"AMQP_SERVER_URL", "amqp://h/?heartbeat=30", true},
		{"AMQP_SERVER_URL", "amqp://h/?cacertfile=a", false},
		// a parameter of RabbitMQ's own, for its Erlang client
		{"AMQP_SERVER_URL", "amqps://h/?verify=verify_none", false},
		{"AMQP_SERVER_URL", "amqps://h/?connection_timeout=1000", false}, // we dial ourselves
		{"AMQP_SERVER_URL", "amqps://h/?heartbeat=%zz", false},
		{"AMQP_SERVER_URL", "amqps://h/#orders", false},
		{"RABBITMQ_MANAGEMENT_URL", "http://h:15672/rabbit", true}, // management.path_prefix
		{"RABBITMQ_MANAGEMENT_URL", "http://h:15672/?vhost=a", false},
		{"RABBITMQ_MANAGEMENT_URL", "http://h:15672/#/queues", false}, // as it is in the browser
		{"FALLBACK_TARGET_URL", "https://h/v2?key=a", false},
		{"FALLBACK_TARGET_URL", "https://h/v2?", false},
		{"FALLBACK_TARGET_URL", "https://h/v2#a", false},
		{"FALLBACK_PROBE_PATH", "/health?deep=1", true},
		{"FALLBACK_PROBE_PATH", "/health#deep", false},
		{"FALLBACK_PROBE_PATH", "/health%zz", false},
		{"FALLBACK_ADDR", "8080", false},
		{"FALLBACK_ADDR", "localhost", false},
		{"FALLBACK_ADDR", "127.0.0.1:", false}, // any port at all
		{"FALLBACK_ADDR", "::1:8080", false},
		{"FALLBACK_ADDR", ":65536", false},
		{"FALLBACK_ADDR", "[::1]:8080", true},
		{"FALLBACK_ADDR", "127.0.0.1:0", true},
		{"FALLBACK_ADDR", ":http", true},
		{"FALLBACK_DRAIN_ADDR", "8081", false},
		{"RABBITMQ_MANAGEMENT_URL", "http://h:15672", true},
		{"RABBITMQ_MANAGEMENT_URL", "h:15672", false},
		{"FALLBACK_PATH_PREFIX", "/", true},
		{"FALLBACK_PATH_PREFIX", "/a?b", false},
		{"FALLBACK_MAX_BODY_BYTES", "0", false},
		{"FALLBACK_MAX_BODY_BYTES", "1", true},
		{"FALLBACK_MAX_BODY_BYTES", "16777217", false},
		{"FALLBACK_MAX_HEADER_BYTES", "1023", false},
		{"FALLBACK_MAX_HEADER_BYTES", "1024", true},
		{"FALLBACK_MAX_HEADER_BYTES", "122880", true},
		{"FALLBACK_MAX_HEADER_BYTES", "122881", false},
		{"FALLBACK_MAX_IN_FLIGHT", "65536", true},
		{"FALLBACK_MAX_IN_FLIGHT", "65537", false},
		{"FALLBACK_MAX_BYTES_IN_HAND", "1048576", true},
		{"FALLBACK_MAX_BYTES_IN_HAND", "1048575", false}, // no body of the largest size would ever be taken
		{"FALLBACK_TIMEOUT", "99ms", false},
		{"FALLBACK_TIMEOUT", "100ms", true},
		{"FALLBACK_TIMEOUT", "10m", true},
		{"FALLBACK_TIMEOUT", "10m1s", false},
		{"FALLBACK_RATE_LIMIT", "0.1", true},
		{"FALLBACK_RATE_LIMIT", "NaN", false}, // it compares with nothing, so it would be no limit
		{"FALLBACK_RATE_LIMIT", "1000000", true},
		{"FALLBACK_RATE_LIMIT", "Inf", false},
		{"FALLBACK_ACCEPT_REPLAYS", "whsec_YQ==", true},
		{"FALLBACK_ACCEPT_REPLAYS", "whsec_YQ==,hunter2!", false},
		{"FALLBACK_ACCEPT_REPLAYS", "whsec_", false}, // anybody could sign
		{"FALLBACK_TRUSTED_PROXIES", "none", true},
		{"FALLBACK_TRUSTED_PROXIES", "::ffff:192.0.2.1", true},
		{"FALLBACK_TRUSTED_PROXIES", "10.0.0.0/8,none", false},
		{"FALLBACK_TRUSTED_PROXIES", "10.0.0.0/33", false},
		{"FALLBACK_TRUSTED_PROXIES", "proxy.example.com", false},
		{"FALLBACK_CORS_ORIGINS", "*", true},
		{"FALLBACK_CORS_ORIGINS", "https://shop.example.com/", false}, // no browser sends it so
		{"FALLBACK_CORS_ORIGINS", "https://Shop.example.com", false},
		{"FALLBACK_CORS_ORIGINS", "https://shop.example.com:443", false},
		{"FALLBACK_CORS_ORIGINS", "shop.example.com", false},
		{"FALLBACK_TARGET_URL", "https://user:password@api.example.com/v2", true},
		{"FALLBACK_TARGET_URL", "amqp://h", false},
		{"FALLBACK_TARGET_TIMEOUT", "99ms", false},
		{"FALLBACK_TARGET_TIMEOUT", "10m", true},
		{"FALLBACK_TARGET_TIMEOUT", "10m1s", false},
		{"FALLBACK_WEBHOOK_SECRETS", "whsec_YWJj,whsec_ZGVm", true},
		{"FALLBACK_WEBHOOK_SECRETS", "whsec_YWJj,", false}, // anybody could sign with the second
		{"FALLBACK_WEBHOOK_SECRETS", "whsec_", false},
		{"FALLBACK_REPLAY_SECRET", "whsec_", false},
		{"FALLBACK_DRAIN_SCHEDULE", "1s", true},
		{"FALLBACK_DRAIN_SCHEDULE", "999ms", false}, // it would run without a pause
		{"FALLBACK_DRAIN_SCHEDULE", "0", false},
		{"FALLBACK_DRAIN_SCHEDULE", "-1m", false},
		{"FALLBACK_DRAIN_SCHEDULE", "0 3 * * *", true},
		{"FALLBACK_DRAIN_WINDOW", "1s", true},
		{"FALLBACK_DRAIN_WINDOW", "999ms", false},
		{"FALLBACK_DRAIN_WINDOW", "-1h", false},
		{"FALLBACK_DRAIN_RATE", "0.01", true},
		{"FALLBACK_DRAIN_RATE", "1000000", true},
		{"FALLBACK_DRAIN_RATE", "Inf", false}, // no rate to reckon with; 0 is no limit
		{"FALLBACK_DRAIN_RATE", "-0.1", false},
		{"FALLBACK_DRAIN_RATE", "NaN", false},
		{"FALLBACK_DRAIN_CONCURRENCY", "-1", false},
		{"FALLBACK_MAX_ATTEMPTS", "1", true},
		{"FALLBACK_MAX_ATTEMPTS", "-1", false},
		{"FALLBACK_MAX_ATTEMPTS", "1001", false},
		{"FALLBACK_MAX_AGE", "0s", true},
		{"FALLBACK_MAX_AGE", "-1ns", false},
		{"FALLBACK_DRAIN_CONCURRENCY", "1000", true},
		{"FALLBACK_DRAIN_CONCURRENCY", "1001", false},
		{"FALLBACK_STALE", "park", true},
		{"FALLBACK_STALE", "drop", true},
		{"LOG_FORMAT", "text", true},
		{"LOG_LEVEL", "WARN", true},
	} {
		t.Run(row.name+"="+row.value, func(t *testing.T) {
			t.Parallel()
			_, err := Load(environment(map[string]string{row.name: row.value}))
			if (err == nil) != row.ok {
				t.Errorf("got %v, want ok %v", err, row.ok)
			}
			if err != nil && !strings.Contains(err.Error(), row.name) {
				t.Errorf("the fault does not name the variable: %v", err)
			}
		})
	}
}

// TestFaultShowsNoSecret holds that what is wrong with a secret can be told without it.
func TestFaultShowsNoSecret(t *testing.T) {
	t.Parallel()
	const password = "hunter2"
	for _, row := range []struct{ name, variable, value string }{
		{"not a URL", "AMQP_SERVER_URL", "amqp://user:hunter2%zz@h/"},
		{"another scheme", "AMQP_SERVER_URL", "http://user:hunter2@h/"},
		{"a password that is not encoded", "AMQP_SERVER_URL", "amqp://user:hunter2#@h/"},
		{"no host", "AMQP_SERVER_URL", "amqp://user:hunter2@/"},
		{"a control character", "AMQP_SERVER_URL", "amqp://user:hunter2@h/\x7f"},
		{"no URL of the management API", "RABBITMQ_MANAGEMENT_URL", "http://user:hunter2%zz@h"},
		{"another scheme of the management API", "RABBITMQ_MANAGEMENT_URL", "amqp://user:hunter2@h"},
		{"tokens with a gap", "FALLBACK_TOKENS", "hunter2,,x"},
		{"a key that the primary would not get", "FALLBACK_TARGET_URL", "https://api.example.com/?hunter2=hunter2"},
		{"a parameter without an effect", "AMQP_SERVER_URL", "amqps://h/?hunter2=hunter2"},
		{"a fragment", "AMQP_SERVER_URL", "amqps://user@h/#hunter2"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(environment(map[string]string{row.variable: row.value}))
			if err == nil {
				t.Fatal("no fault was found")
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				if text := fmt.Sprintf("%v %+v %#v", e, e, e); strings.Contains(text, password) {
					t.Errorf("the fault shows the password: %s", text)
				}
			}
		})
	}
}

// TestSecretsAreHidden holds that settings can be printed and logged in every way that Go has without showing a secret.
func TestSecretsAreHidden(t *testing.T) {
	t.Parallel()
	const secret = "hunter22" // of a length that base64 has
	c := load(t, map[string]string{
		"AMQP_SERVER_URL":          "amqp://user:" + secret + "@h/",
		"RABBITMQ_MANAGEMENT_URL":  "http://monitor:" + secret + "@h:15672",
		"FALLBACK_TOKENS":          secret + "," + secret,
		"FALLBACK_WEBHOOK_SECRETS": secret,
	})
	for _, s := range slices.Concat([]Secret{c.AMQPServerURL, c.ManagementURL}, c.Tokens, c.WebhookSecrets) {
		if !strings.Contains(s.Reveal(), secret) {
			t.Fatal("a secret was not read") // else nothing here could fail
		}
	}
	type row struct {
		name string
		show func(any) string
	}
	var rows []row
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		rows = append(rows, row{verb, func(v any) string { return fmt.Sprintf(verb, v) }})
	}
	rows = append(rows,
		row{"slog as JSON", func(v any) string {
			var buf bytes.Buffer
			slog.New(slog.NewJSONHandler(&buf, nil)).Info("m", "v", v)
			return buf.String()
		}},
		row{"slog as text", func(v any) string {
			var buf bytes.Buffer
			slog.New(slog.NewTextHandler(&buf, nil)).Info("m", "v", v)
			return buf.String()
		}},
		row{"JSON", func(v any) string {
			b, err := json.Marshal(v)
			if err != nil {
				t.Error(err)
			}
			return string(b)
		}},
	)
	for _, row := range rows {
		for _, v := range []struct {
			name  string
			value any
		}{{"a secret", c.AMQPServerURL}, {"secrets", c.Tokens}, {"the settings", c}, {"a pointer to them", &c}} {
			t.Run(row.name+" of "+v.name, func(t *testing.T) {
				t.Parallel()
				if got := row.show(v.value); strings.Contains(got, secret) {
					t.Errorf("shown: %s", got)
				}
			})
		}
	}
}

// TestSettingsTable holds that every setting has a row in the README's table, with what people need to know.
func TestSettingsTable(t *testing.T) {
	t.Parallel()
	table := Markdown()
	for _, s := range Settings() {
		if s.About == "" || s.Unit == "" {
			t.Errorf("%s: nothing is said of it", s.Name)
		}
		if !strings.Contains(table, "| `"+s.Name+"` |") {
			t.Errorf("%s: not in the table", s.Name)
		}
		switch example := Example(s.Name); {
		case example == "":
			t.Errorf("%s: no fault could show what is right: it needs an example", s.Name)
		case !strings.Contains(example, "openssl"): // no secret to be copied
			if _, err := Load(environment(map[string]string{s.Name: example})); err != nil {
				t.Errorf("%s: its own example is refused: %v", s.Name, err)
			}
		}
		if s.Default != "" {
			if _, err := Load(environment(map[string]string{s.Name: s.Default})); err != nil {
				t.Errorf("%s: its own default is refused: %v", s.Name, err)
			}
		}
	}
}
