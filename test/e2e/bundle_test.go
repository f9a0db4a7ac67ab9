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
	"slices"
	"strings"
	"testing"
	"time"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// bundle is docker-compose.yml brought up beside whatever else runs on this host: with a project name and ports of its own.
type bundle struct {
	t       *testing.T
	project string
	env     []string
}

func newBundle(t *testing.T) *bundle {
	b := &bundle{t: t, project: fmt.Sprintf("fallback-test-%d", os.Getpid())}
	b.env = os.Environ()
	for _, name := range []string{"PORT", "AMQP_PORT", "MANAGEMENT_PORT"} {
		b.env = append(b.env, name+"="+freePort(t))
	}
	return b
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// compose runs docker compose with an empty env file, so that a developer's own .env has no say.
func (b *bundle) compose(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	args = append([]string{"compose", "-p", b.project, "--env-file", os.DevNull}, args...)
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Dir, cmd.Env = harness.Root(), b.env
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("docker %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	} else if args[5] == "config" && stderr.Len() > 0 {
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

func TestBundleConfig(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.env = append(b.env, "AMQP_SERVER_URL=amqp://function:secret@elsewhere/")
	var config composeConfig
	if err := json.Unmarshal([]byte(b.must("config", "--format", "json")), &config); err != nil {
		t.Fatal(err)
	}
	published := map[int]bool{}
	for name, service := range config.Services {
		if service.HealthCheck == nil {
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
	for _, port := range []int{8080, 5672, 15672} {
		if !published[port] {
			t.Errorf("port %d is not published", port)
		}
	}
	server := config.Services["server"]
	if !server.ReadOnly || !slices.Equal(server.CapDrop, []string{"ALL"}) {
		t.Errorf("the server's root is writable or it has capabilities: %+v", server)
	}
	if !slices.Contains(server.SecurityOpt, "no-new-privileges:true") {
		t.Errorf("the server may gain privileges: %q", server.SecurityOpt)
	}
	var soft int64
	if _, err := fmt.Sscanf(*server.Environment["GOMEMLIMIT"], "%dMiB", &soft); err != nil || soft<<20 >= server.MemLimit {
		t.Errorf("GOMEMLIMIT of %d MiB is not below the limit of %d bytes: %v", soft, server.MemLimit, err)
	}
	if rabbitmq := config.Services["rabbitmq"]; rabbitmq.User != "rabbitmq" || rabbitmq.Hostname != "rabbitmq" {
		t.Errorf("RabbitMQ runs as %q on host %q, which its data is under", rabbitmq.User, rabbitmq.Hostname)
	}
	if url := *server.Environment["AMQP_SERVER_URL"]; !strings.Contains(url, "@rabbitmq:5672/") {
		t.Errorf("the server takes AMQP_SERVER_URL from the environment, where it is the function's: %s", url)
	}
}

// TestBundle brings the bundle up, sends a request, restarts everything, and finds the request on the queue.
func TestBundle(t *testing.T) {
	t.Parallel()
	if harness.Version() != "4.3" {
		t.Log("the bundle's own RabbitMQ is 4.3")
	}
	b := newBundle(t)
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := b.compose("logs", "--tail", "30")
			t.Log(logs)
		}
		if _, err := b.compose("down", "--volumes", "--timeout", "20"); err != nil {
			t.Error(err)
		}
	})
	b.must("up", "--detach", "--wait", "--wait-timeout", "180", "--no-build")
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
	b.must("up", "--detach", "--wait", "--wait-timeout", "180", "--no-build")
	queues := b.must("exec", "-T", "server", "/fallback", "queues", "--json")
	var rows []struct {
		Queue string
		Ready int
	}
	if err := json.Unmarshal([]byte(queues), &rows); err != nil {
		t.Fatalf("%v in %s", err, queues)
	}
	if rows[0].Queue != topology.DefaultQueue || rows[0].Ready != 1 {
		t.Errorf("after a restart: got %s, want one message on %s", queues, topology.DefaultQueue)
	}
	id := strings.TrimSpace(b.must("ps", "--quiet", "server"))
	if out, err := exec.Command("docker", "inspect", "--format", "{{.Config.User}}", id).CombinedOutput(); string(out) != "65532:65532\n" {
		t.Errorf("the server runs as %q %v", out, err)
	}
	user, err := b.compose("exec", "-T", "rabbitmq", "id", "-un")
	if err != nil || strings.TrimSpace(user) != "rabbitmq" {
		t.Errorf("RabbitMQ runs as %q %v", user, err)
	}
}
