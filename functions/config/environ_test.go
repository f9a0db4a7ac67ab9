package config

import (
	"bytes"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStrays(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, nearest string // nearest is empty for what is none of our business
		guard         bool
	}{
		{"FALLBACK_TOKENS", "", false},
		{"FALLBACK_DEFINITIONS", "", false},
		{"FALLBACK_DRAINER_PASSWORD", "", false},
		{"RABBITMQ_ADMIN_PASSWORD", "", false},
		{"FALLBACK_TEST_RABBITMQ", "", false},
		{"PATH", "", false},
		{"LOG_FILE", "", false},
		{"API_TOKEN", "", false}, // of another program

		{"FALLBACK_TARGET", "FALLBACK_TARGET_URL", false},
		{"FALLBACK_TARGETS", "FALLBACK_TARGET_URL", false},
		{"FALLBACK_DRAIN_TIMEOUT", "FALLBACK_DRAIN_WINDOW", false},
		{"FALLBACK_MAX_ATTEMPT", "FALLBACK_MAX_ATTEMPTS", false},
		{"fallback_queue", "FALLBACK_QUEUE", false},
		{"FALBACK_TARGET_URL", "FALLBACK_TARGET_URL", false},
		{"AMQP_SEVRER_URL", "AMQP_SERVER_URL", false},
		{"LOG_LEVLE", "LOG_LEVEL", false},

		{"FALLBACK_TOKEN", "FALLBACK_TOKENS", true},
		{"FALBACK_TOKENS", "FALLBACK_TOKENS", true},
		{"FALLBACKTOKENS", "FALLBACK_TOKENS", true},
		{"FALLBACK_TOKNES", "FALLBACK_TOKENS", true},
		{"fallback_tokens", "FALLBACK_TOKENS", true},
		{"FALLBACK_API_TOKEN", "FALLBACK_TOKENS", true},
		{"FALLBACK_WEBHOOKS", "FALLBACK_WEBHOOK_SECRETS", true},
		{"FALLBACK_SECRETS", "FALLBACK_WEBHOOK_SECRETS", true},
		{"FALLBACK_AUTH", "FALLBACK_TOKENS", true},
		{"FALLBACK_API_KEY", "FALLBACK_TOKENS", true},
		{"FALLBACK_REPLAY_SECRETS", "FALLBACK_REPLAY_SECRET", false},
		{"FALLBACK_SERVICE_HOST", "", false}, // Kubernetes sets these
		{"FALLBACK_PORT_8080_TCP_ADDR", "", false},
		{"FALLBACK_TOKENS_FILE", "FALLBACK_TOKENS", true},
		{"FALLBACK_WEBHOOK_SECRET", "FALLBACK_WEBHOOK_SECRETS", true},
		{"FALLBACK_WEBHOOKS_SECRET", "FALLBACK_WEBHOOK_SECRETS", true},
		{"FALLBACK_WEBHOOK_SECERTS", "FALLBACK_WEBHOOK_SECRETS", true},
	} {
		var want []Stray
		if row.nearest != "" {
			want = []Stray{{row.name, row.nearest, row.guard}}
		}
		if diff := cmp.Diff(want, Strays([]string{row.name})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
}

// TestEnvironLoad holds that an open door by a slip is a fault beside all others, that other slips are told, and that
// neither shows a value.
func TestEnvironLoad(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		environ Environ
		faults  []string
		told    []string
	}{
		{"as it should be", Environ{"FALLBACK_TOKENS=geheim", "PATH=/bin"}, nil, nil},
		{"set to nothing", Environ{"FALLBACK_TOKEN=", "FALLBACK_TARGET="}, nil, nil},
		{"a token without its s", Environ{"FALLBACK_TOKEN=geheim", "FALLBACK_ADDR=8080"},
			[]string{"\nFALLBACK_TOKEN: no such setting; the nearest is FALLBACK_TOKENS", "\nFALLBACK_ADDR: "}, nil},
		{"beside the right one", Environ{"FALLBACK_WEBHOOK_SECRET=geheim", "FALLBACK_TOKENS=geheim"},
			[]string{"the nearest is FALLBACK_WEBHOOK_SECRETS"}, nil},
		{"another setting", Environ{"FALLBACK_TARGET=http://geheim", "FALLBACK_MAX_TRIES=geheim"}, nil,
			[]string{"name=FALLBACK_TARGET nearest=FALLBACK_TARGET_URL", "name=FALLBACK_MAX_TRIES"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c, err := row.environ.Load()
			if (err != nil) != (row.faults != nil) {
				t.Fatalf("got %v, want %q", err, row.faults)
			}
			for _, fault := range row.faults {
				if !strings.Contains(err.Error(), fault) {
					t.Errorf("got %v, want %q", err, fault)
				}
			}
			var log bytes.Buffer
			c.TellStrays(slog.New(slog.NewTextHandler(&log, nil)))
			if lines := strings.Count(log.String(), "level=WARN"); lines != len(row.told) {
				t.Errorf("got %d lines, want %d:\n%s", lines, len(row.told), &log)
			}
			for _, told := range row.told {
				if !strings.Contains(log.String(), told) {
					t.Errorf("got %s, want %q", &log, told)
				}
			}
			if err != nil && strings.Contains(err.Error(), "geheim") || strings.Contains(log.String(), "geheim") {
				t.Errorf("a value is shown: %v\n%s", err, &log)
			}
		})
	}
}

func TestEnvironLookup(t *testing.T) {
	t.Parallel()
	e := Environ{"A=1", "AB=2", "A=3", "EMPTY="}
	for _, row := range []struct {
		name, want string
		ok         bool
	}{{"A", "1", true}, {"AB", "2", true}, {"EMPTY", "", true}, {"B", "", false}, {"", "", false}} {
		if got, ok := e.Lookup(row.name); got != row.want || ok != row.ok {
			t.Errorf("%s: got %q, %v", row.name, got, ok)
		}
	}
}

// TestTheBundlesNamesAreKnown holds that no name that the repository's own files have is taken for a slip, and that no
// name is known which none of them has.
func TestTheBundlesNamesAreKnown(t *testing.T) {
	t.Parallel()
	there := map[string]bool{}
	for _, file := range []string{"docker-compose.yml", "project.yml", ".env.example"} {
		raw, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\bFALLBACK_[A-Z_]+[A-Z]\b`).FindAllString(string(raw), -1) {
			there[name] = true
			if strays := Strays([]string{name}); len(strays) > 0 {
				t.Errorf("%s has %s, which would be told as unknown", file, name)
			}
		}
	}
	settings := map[string]bool{}
	for _, s := range Settings() {
		settings[s.Name] = true
	}
	for _, name := range knownNames() {
		if !there[name] && !settings[name] && strings.HasPrefix(name, ours) {
			t.Errorf("%s is known, and nowhere", name)
		}
	}
}
