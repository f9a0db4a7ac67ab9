package deploy_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	settings "fallback/functions/config"
	"fallback/functions/drain"
	"fallback/functions/httpapi"
	"fallback/functions/rabbit"
)

// service is what these tests look at of one in docker-compose.yml.
type service struct {
	Environment map[string]string
	MemLimit    string `yaml:"mem_limit"`
}

// services are those of docker-compose.yml.
func services(t *testing.T) map[string]service {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var compose struct{ Services map[string]service }
	if err := yaml.Unmarshal(raw, &compose); err != nil {
		t.Fatal(err)
	}
	return compose.Services
}

// TestMemoryAddsUp holds that all that strangers may have of a container at the same time fits into it by default,
// beside what the program takes for itself.
func TestMemoryAddsUp(t *testing.T) {
	t.Parallel()
	const itself = 40 << 20
	c, err := settings.Load(func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	all := services(t)
	for name, most := range map[string]int64{
		"server": httpapi.ServerBounds.Memory() + c.MaxBytesInHand + itself,
		"drain":  httpapi.HealthBounds.Memory() + drain.MostBytes + rabbit.MostReadyBytes + itself,
	} {
		limit, err := strconv.ParseInt(strings.TrimSuffix(all[name].MemLimit, "m"), 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Logf("%s: %d MiB of %d", name, most>>20, limit)
		if most >= limit<<20 {
			t.Errorf("%s: strangers and the program may take %d MiB together, and the container has %d", name, most>>20,
				limit)
		}
	}
}

// TestComposePassesEverySetting holds that what the README calls a setting is one of the server, of the drain, or of
// both in docker-compose.yml.
func TestComposePassesEverySetting(t *testing.T) {
	t.Parallel()
	all := services(t)
	server, drain := all["server"].Environment, all["drain"].Environment
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
