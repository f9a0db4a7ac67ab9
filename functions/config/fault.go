package config

import (
	"cmp"
	"fmt"
	"strings"
)

// wrong is what is wrong with a setting, with an example of what is right.
func wrong(name, format string, args ...any) error {
	err := fmt.Errorf(name+": "+format, args...)
	if example := Example(name); example != "" {
		return fmt.Errorf("%w; for example %s", err, example)
	}
	return err
}

// examples are of settings whose default would be none.
var examples = map[string]string{
	"AMQP_SERVER_URL":          "amqp://user:password@localhost:5672/",
	"RABBITMQ_MANAGEMENT_URL":  "http://user:password@localhost:15672",
	"FALLBACK_RATE_LIMIT":      "50",
	"FALLBACK_TOKENS":          "what `openssl rand -hex 32` prints",
	"FALLBACK_WEBHOOK_SECRETS": "whsec_ and what `openssl rand -base64 32` prints",
	"FALLBACK_ACCEPT_REPLAYS":  "whsec_ and what `openssl rand -base64 32` prints, as in the FALLBACK_REPLAY_SECRET of the first",
	"FALLBACK_CORS_ORIGINS":    "https://shop.example.com",
	"FALLBACK_TARGET_URL":      "https://api.example.com",
	"FALLBACK_REPLAY_SECRET":   "whsec_ and what `openssl rand -base64 32` prints",
	"FALLBACK_DRAIN_RATE":      "50",
	"FALLBACK_MAX_AGE":         "72h",
}

// Example is a value that a setting may have; the default, where that is one.
func Example(name string) string {
	for _, s := range Settings() {
		if s.Name == name {
			return cmp.Or(examples[name], strings.TrimSpace(s.Default))
		}
	}
	return ""
}
