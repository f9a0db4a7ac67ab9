package app

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"fallback/functions/config"
)

// TestOpenEnds holds that a server says at its start what its settings leave open, and only then.
func TestOpenEnds(t *testing.T) {
	t.Parallel()
	const strangers, classic = "everyone who can reach this address may enqueue", "a classic queue would go unnoticed"
	management := map[string]string{"RABBITMQ_MANAGEMENT_URL": "http://u:p@127.0.0.1:1"}
	for _, row := range []struct {
		name, addr string
		env        map[string]string
		want       string // one of the two, or both
	}{
		{"every address, no key", ":0", management, strangers},
		{"every address, a token", ":0", map[string]string{"FALLBACK_TOKENS": "x"}, classic},
		{"every address, a webhook secret", ":0", map[string]string{"FALLBACK_WEBHOOK_SECRETS": "whsec_YQ=="}, classic},
		{"loopback, no key", "127.0.0.1:0", management, ""},
		{"all at once", ":0", nil, strangers + classic},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c, err := config.Load(func(name string) (string, bool) {
				switch name {
				case "AMQP_SERVER_URL":
					return "amqp://u:p@127.0.0.1:1/", true
				case "FALLBACK_ADDR":
					return row.addr, true
				}
				value, ok := row.env[name]
				return value, ok
			})
			if err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			server, err := NewServer(c, slog.New(slog.NewTextHandler(&log, nil)), nil)
			if err != nil {
				t.Fatal(err)
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if err := server.Run(ended); err != nil {
				t.Error(err)
			}
			for _, text := range []string{strangers, classic} {
				if got, want := strings.Contains(log.String(), text), strings.Contains(row.want, text); got != want {
					t.Errorf("%q: logged %v, want %v:\n%s", text, got, want, &log)
				}
			}
		})
	}
}
