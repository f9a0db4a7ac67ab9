//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// bundle is docker-compose.yml brought up beside whatever else runs on this host: with a project name and ports of its
// own.
type bundle struct {
	t       *testing.T
	project string
	env     []string
	ports   map[string]string // by the variable that moves them
}

func newBundle(t *testing.T) *bundle {
	b := &bundle{t: t, project: harness.Name(), ports: map[string]string{}}
	for _, variable := range os.Environ() {
		// A developer's settings, and those of the make that runs the tests, have no say.
		if !slices.ContainsFunc([]string{"FALLBACK_", "COMPOSE_", "MAKE", "MFLAGS"},
			func(p string) bool { return strings.HasPrefix(variable, p) }) {
			b.env = append(b.env, variable)
		}
	}
	for _, name := range []string{"PORT", "DRAIN_PORT", "AMQP_PORT", "MANAGEMENT_PORT", "PRIMARY_PORT"} {
		b.ports[name] = freePort(t)
		b.env = append(b.env, name+"="+b.ports[name])
	}
	return b
}

// forgetAtEnd takes everything away when the test ends.
func (b *bundle) forgetAtEnd() {
	b.t.Cleanup(func() {
		if b.t.Failed() {
			logs, _ := b.compose("--profile", "demo", "logs", "--tail", "30")
			b.t.Log(logs)
		}
		if _, err := b.compose("--profile", "demo", "down", "--volumes", "--timeout", "20"); err != nil {
			b.t.Error(err)
		}
	})
}

func freePort(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(harness.FreeAddress())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// compose runs docker compose with an empty env file, so that a developer's own .env has no say.
func (b *bundle) compose(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	args = append([]string{"compose", "-p", b.project, "--env-file", os.DevNull}, args...)
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Dir, cmd.Env = harness.Root(), b.env
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("docker %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	} else if slices.Contains(args, "config") && stderr.Len() > 0 {
		err = fmt.Errorf("docker compose config is not clean: %s", stderr.String())
	}
	return string(out), err
}

func (b *bundle) must(args ...string) string {
	b.t.Helper()
	out, err := b.compose(args...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// composeConfig is what the test looks at of `docker compose config`.
type composeConfig struct {
	Services map[string]struct {
		User        string
		Restart     string
		Hostname    string
		ReadOnly    bool     `json:"read_only"`
		CapDrop     []string `json:"cap_drop"`
		SecurityOpt []string `json:"security_opt"`
		MemLimit    int64    `json:"mem_limit,string"`
		Environment map[string]*string
		Ports       []struct {
			HostIP string `json:"host_ip"`
			Target int
		}
		HealthCheck *struct{ Test []string }
	}
}

func (b *bundle) config() (config composeConfig) {
	b.t.Helper()
	if err := json.Unmarshal([]byte(b.must("--profile", "demo", "config", "--format", "json")), &config); err != nil {
		b.t.Fatal(err)
	}
	return config
}

func TestBundleConfig(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.env = append(b.env, "AMQP_SERVER_URL=amqp://function:secret@elsewhere/")
	config := b.config()
	published := map[int]bool{}
	for name, service := range config.Services {
		if service.HealthCheck == nil && service.Restart != "" { // what is not started again ends by itself
			t.Errorf("%s has no health check", name)
		}
		if service.MemLimit < 128<<20 || service.MemLimit > 1<<30 {
			t.Errorf("%s may take %d bytes of memory, which is nothing for a small droplet", name, service.MemLimit)
		}
		for _, port := range service.Ports {
			published[port.Target] = true
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes %d on %q", name, port.Target, port.HostIP)
			}
		}
	}
	for _, port := range []int{8080, 8081, 5672, 15672, 8090} {
		if !published[port] {
			t.Errorf("port %d is not published", port)
		}
	}
	for _, name := range []string{"server", "drain", "primary"} {
		service := config.Services[name]
		if !service.ReadOnly || !slices.Equal(service.CapDrop, []string{"ALL"}) {
			t.Errorf("%s: its root is writable or it has capabilities: %+v", name, service)
		}
		if !slices.Contains(service.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s may gain privileges: %q", name, service.SecurityOpt)
		}
		var soft int64
		limit := service.Environment["GOMEMLIMIT"]
		if limit == nil {
			t.Errorf("%s has no GOMEMLIMIT", name)
		} else if _, err := fmt.Sscanf(*limit, "%dMiB", &soft); err != nil || soft<<20 >= service.MemLimit {
			t.Errorf("%s: GOMEMLIMIT of %d MiB is not below the limit of %d bytes: %v", name, soft, service.MemLimit,
				err)
		}
	}
	if target := config.Services["drain"].Environment["FALLBACK_TARGET_URL"]; target == nil || *target != "" {
		t.Errorf("the drain has the target %v, and should idle", target)
	}
	server := config.Services["server"]
	if rabbitmq := config.Services["rabbitmq"]; rabbitmq.User != "rabbitmq" || rabbitmq.Hostname != "rabbitmq" {
		t.Errorf("RabbitMQ runs as %q on host %q, which its data is under", rabbitmq.User, rabbitmq.Hostname)
	}
	if url := *server.Environment["AMQP_SERVER_URL"]; !strings.Contains(url, "@rabbitmq:5672/") {
		t.Errorf("the server takes AMQP_SERVER_URL from the environment, where it is the function's: %s", url)
	}
}

// ready is how many requests wait on the main queue.
func (b *bundle) ready() int {
	b.t.Helper()
	queues := b.must("exec", "-T", "server", "/fallback", "queues", "--json")
	var rows []struct {
		Queue string
		Ready int
	}
	if err := json.Unmarshal([]byte(queues), &rows); err != nil || rows[0].Queue != topology.DefaultQueue {
		b.t.Fatalf("%v in %s", err, queues)
	}
	return rows[0].Ready
}

// TestBundle brings the bundle up, sends a request, restarts everything, and finds the request on the queue.
func TestBundle(t *testing.T) {
	t.Parallel()
	if harness.Version() != "4.3" {
		t.Log("the bundle's own RabbitMQ is 4.3")
	}
	b := newBundle(t)
	b.forgetAtEnd()
	b.must("up", "--detach", "--wait", "--wait-timeout", "600", "--no-build")
	address := strings.TrimSpace(b.must("port", "server", "8080"))
	response, err := http.Post("http://"+address+"/fallback/orders", "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if response.StatusCode != http.StatusAccepted {
		t.Fatalf("got %s %s", response.Status, body)
	}
	b.must("down", "--timeout", "20")
	b.must("up", "--detach", "--wait", "--wait-timeout", "600", "--no-build")
	if ready := b.ready(); ready != 1 {
		t.Errorf("after a restart: got %d messages on the queue, want 1", ready)
	}
	if services := b.must("--profile", "demo", "ps", "--services"); strings.Contains(services, "primary") {
		t.Errorf("`docker compose up` starts the primary, too: %q", services)
	}
	id := strings.TrimSpace(b.must("ps", "--quiet", "server"))
	if out, err := harness.Run(harness.Patience, "docker", "inspect", "--format", "{{.Config.User}}",
		id); out != "65532:65532\n" {
		t.Errorf("the server runs as %q %v", out, err)
	}
	user, err := b.compose("exec", "-T", "rabbitmq", "id", "-un")
	if err != nil || strings.TrimSpace(user) != "rabbitmq" {
		t.Errorf("RabbitMQ runs as %q %v", user, err)
	}
}

// TestEnvFiles holds that passwords of one's own do not keep Compose from reading .env.
func TestEnvFiles(t *testing.T) {
	t.Parallel()
	for dotenv, want := range map[string]string{
		".env": "docker compose --env-file .env --env-file private/fallback.env ",
		"":     "docker compose --env-file private/fallback.env ",
	} {
		out, err := harness.Run(harness.Patience, "make", "-n", "down", "ENV_FILE=private/fallback.env",
			"DOTENV="+dotenv)
		if err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("with %q: got %q, %v; want %q", dotenv, out, err, want)
		}
	}
	// The private ones are taken where the README has them made, without a word.
	dir := t.TempDir()
	for _, want := range []string{"docker compose --profile",
		"docker compose --env-file private/fallback.env --profile"} {
		make := exec.Command("make", "-f", filepath.Join(harness.Root(), "Makefile"), "-n", "down")
		make.Dir = dir
		if out, err := make.CombinedOutput(); err != nil ||
			!strings.HasPrefix(strings.Join(strings.Fields(string(out)), " "), want) {
			t.Errorf("got %q, %v; want %q", out, err, want)
		}
		if err := os.MkdirAll(filepath.Join(dir, "private"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "private", "fallback.env"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
