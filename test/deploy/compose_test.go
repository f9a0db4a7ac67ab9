package deploy_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	settings "fallback/functions/config"
)

// TestComposePassesEverySetting holds that what the README calls a setting is one of the server, of the drain, or of both in
// docker-compose.yml.
func TestComposePassesEverySetting(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var compose struct {
		Services map[string]struct{ Environment map[string]string }
	}
	if err := yaml.Unmarshal(raw, &compose); err != nil {
		t.Fatal(err)
	}
	server, drain := compose.Services["server"].Environment, compose.Services["drain"].Environment
	of := []string{"GOMEMLIMIT"} // the runtime's, beside the settings
	for _, s := range settings.Settings() {
		of = append(of, s.Name)
		value, passed := server[s.Name]
		if !passed {
			value, passed = drain[s.Name]
		} else if other, both := drain[s.Name]; both && other != value && s.Name != "AMQP_SERVER_URL" {
			t.Errorf("%s: the server has %q, the drain %q", s.Name, value, other)
		}
		switch s.Name {
		case "FALLBACK_ADDR", "FALLBACK_DRAIN_ADDR": // inside the container; PORT is the one to change
			if passed {
				t.Errorf("%s is set, and the published port and the health check are not", s.Name)
			}
		case "AMQP_SERVER_URL", "RABBITMQ_MANAGEMENT_URL": // made from the passwords
			if !strings.Contains(value, "_PASSWORD:-") {
				t.Errorf("%s: got %q", s.Name, value)
			}
		default:
			if want := "${" + s.Name + ":-}"; value != want {
				t.Errorf("%s: got %q, want %q", s.Name, value, want)
			}
		}
	}
	for _, environment := range []map[string]string{server, drain} {
		for name := range environment {
			if !slices.Contains(of, name) {
				t.Errorf("%s is no setting", name)
			}
		}
	}
}
