//go:build e2e

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// TestCommands runs the binary that is shipped.
func TestCommands(t *testing.T) {
	t.Parallel()
	fallback := build(t)
	for _, row := range []struct {
		name string
		test func(*testing.T, program)
	}{
		{"words", testWords},
		{"faulty settings", testFaultySettings},
		{"queues", testQueues},
		{"health", testHealth},
		{"private definitions", testPrivateDefinitions},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.test(t, fallback)
		})
	}
}

// program is the fallback binary.
type program string

// build makes the binary as it is shipped.
func build(t *testing.T) program {
	t.Helper()
	built, err := harness.Build("./functions/cmd/fallback")
	if err != nil {
		t.Fatal(err)
	}
	return program(built)
}

// outcome is what a command came to.
type outcome struct {
	stdout, stderr string
	code           int
}

// run runs a command with the settings as its whole environment.
func (p program) run(t *testing.T, env harness.Settings, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience) // where it should have ended, and serves
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, string(p), args...)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// check compares the exit code, and holds that the command says each of the words, and none of the secrets anywhere.
func (o outcome) check(t *testing.T, code int, says, secrets []string) {
	t.Helper()
	all := o.stdout + o.stderr
	if o.code != code {
		t.Errorf("exit code: got %d, want %d", o.code, code)
	}
	for _, s := range says {
		if !strings.Contains(all, s) {
			t.Errorf("it does not say %q", s)
		}
	}
	for _, s := range secrets {
		if strings.Contains(all, s) {
			t.Errorf("it shows the secret %q", s)
		}
	}
	if code != 0 && o.stdout != "" {
		t.Errorf("a failure says %q on stdout, which is for data", o.stdout)
	}
	if t.Failed() {
		t.Logf("stdout:\n%s\nstderr:\n%s", o.stdout, o.stderr)
	}
}

// nowhere is a loopback address where nothing listens.
func nowhere(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// queueLine is a line of `fallback queues --json`.
type queueLine struct {
	Queue     string `json:"queue"`
	Ready     int    `json:"ready"`
	Consumers int    `json:"consumers"`
	Error     string `json:"error"`
}

// testQueues holds that `fallback queues` shows what is on the queues, and says why where it cannot.
func testQueues(t *testing.T, fallback program) {
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	const retry1, retry2, retry3 = "FallbackAPIQueue.retry.10s", "FallbackAPIQueue.retry.1m",
		"FallbackAPIQueue.retry.10m"

	// Three requests: one in the hands of a consumer, two ready. And a consumer who waits for parked requests.
	for range 3 {
		accepted(t, post(t, server, nil))
	}
	ch := vhost.Channel(t, drainer)
	if err := ch.Qos(1, 0, false); err != nil {
		t.Fatal(err)
	}
	deliveries, err := ch.Consume(mainQueue, "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-deliveries:
	case <-time.After(harness.Patience):
		t.Fatal("no message came")
	}
	vhost.Reader(t, parkedQueue)

	asAdmin := harness.Settings{"AMQP_SERVER_URL": vhost.URL(admin)}
	lines := func(t *testing.T, env harness.Settings) []queueLine {
		t.Helper()
		o := fallback.run(t, env, "queues", "--json")
		o.check(t, 0, nil, nil)
		var got []queueLine
		if err := json.Unmarshal([]byte(o.stdout), &got); err != nil {
			t.Fatalf("%v in %s", err, o.stdout)
		}
		return got
	}

	t.Run("as JSON", func(t *testing.T) {
		want := []queueLine{{mainQueue, 2, 1, ""}, {parkedQueue, 0, 1, ""}, {retry1, 0, 0, ""}, {retry2, 0, 0, ""},
			{retry3, 0, 0, ""}}
		var got []queueLine
		defer func() {
			if t.Failed() {
				t.Logf("got %v, want %v", got, want)
			}
		}()
		harness.Eventually(t, "all five queues with their counts", func() bool {
			got = lines(t, asAdmin)
			return slices.Equal(got, want)
		})
	})
	t.Run("as a table", func(t *testing.T) { // the counts stay as they were
		o := fallback.run(t, asAdmin, "queues")
		o.check(t, 0, nil, nil)
		var got []string
		for line := range strings.Lines(o.stdout) {
			got = append(got, strings.Join(strings.Fields(line), " "))
		}
		want := []string{"QUEUE READY CONSUMERS", mainQueue + " 2 1", parkedQueue + " 0 1", retry1 + " 0 0", retry2 +
			" 0 0", retry3 + " 0 0"}
		if !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", o.stdout, strings.Join(want, "\n"))
		}
	})
	for user, visible := range map[string]int{admin: 5, publisher: 1, drainer: 2, monitor: 0} { // from the first one on
		t.Run("as "+user, func(t *testing.T) {
			if harness.Version() != "4.3" { // everyone may see every queue
				visible = 5
			}
			for i, line := range lines(t, harness.Settings{"AMQP_SERVER_URL": vhost.URL(user)}) {
				want := ""
				switch {
				case i == visible:
					want = "not visible to this user"
				case i > visible:
					want = "not asked"
				}
				if line.Error != want {
					t.Errorf("%s: got the reason %q, want %q", line.Queue, line.Error, want)
				}
				if line.Queue == mainQueue && want == "" && line.Ready != 2 {
					t.Errorf("%s: got %d ready, want 2", line.Queue, line.Ready)
				}
			}
		})
	}
	t.Run("without the queues", func(t *testing.T) {
		env := harness.Settings{"AMQP_SERVER_URL": vhost.URL(admin), "FALLBACK_QUEUE": "Other"}
		for _, line := range lines(t, env) {
			if line.Error != "does not exist" || !strings.HasPrefix(line.Queue, "Other") {
				t.Errorf("got %+v, want a queue named Other that does not exist", line)
			}
		}
	})
	t.Run("with a wrong password", func(t *testing.T) {
		env := harness.Settings{"AMQP_SERVER_URL": "amqp://" + publisher + ":tell-no-one@" + broker.AMQP}
		fallback.run(t, env, "queues").check(t, 1, []string{"check the user and password in AMQP_SERVER_URL"},
			[]string{"tell-no-one"})
	})
	t.Run("on a virtual host that is not there", func(t *testing.T) {
		env := harness.Settings{"AMQP_SERVER_URL": broker.URL(publisher, "none")}
		fallback.run(t, env, "queues").check(t, 1,
			[]string{"check the virtual host in AMQP_SERVER_URL"}, []string{topology.Demonstration(publisher).Plain})
	})
	t.Run("with the broker away", func(t *testing.T) {
		env := harness.Settings{"AMQP_SERVER_URL": "amqp://" + publisher + ":tell-no-one@" + nowhere(t)}
		fallback.run(t, env, "queues").check(t, 1, []string{"check that RabbitMQ runs"}, []string{"tell-no-one"})
	})
	t.Run("without a broker", func(t *testing.T) {
		fallback.run(t, nil, "queues").check(t, 1, []string{"AMQP_SERVER_URL: not set; for example amqp://"}, nil)
	})
}

// testHealth holds that `fallback health` says what /readyz does.
func testHealth(t *testing.T, fallback program) {
	server := broker.VHost(t).Serve(t, nil)
	server.WaitReady(t)
	unready := broker.VHost(t).Serve(t, harness.Settings{"AMQP_SERVER_URL": "amqp://u:tell-no-one@" + nowhere(t)})
	for _, row := range []struct {
		name string
		env  harness.Settings
		args []string
		code int
		says string
	}{
		{"ready, by flag", nil, []string{"--addr", server.Addr}, 0, "ready"},
		{"ready, by setting", harness.Settings{"FALLBACK_ADDR": server.Addr}, nil, 0, "ready"},
		{"broker away", nil, []string{"--addr", unready.Addr}, 1, "not ready: Not ready: the broker cannot be reached"},
		{"nothing there", nil, []string{"--addr", nowhere(t)}, 1, "not healthy"},
		{"no address", nil, []string{"--addr", "localhost"}, 2, "is not host:port"},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := fallback.run(t, row.env, append([]string{"health"}, row.args...)...)
			o.check(t, row.code, []string{row.says}, []string{"tell-no-one"})
			if row.code == 0 && o.stdout != "ready\n" {
				t.Errorf("got %q, want ready", o.stdout)
			}
		})
	}
}

// testWords is about the words of the commands that need no broker.
func testWords(t *testing.T, fallback program) {
	for _, row := range []struct {
		args string
		code int
		says []string
	}{
		{"", 0, []string{"serve", "health", "queues", "definitions", "settings"}},
		{"--help", 0, []string{"serve", "health", "queues", "definitions", "settings"}},
		{"serve --help", 0, []string{"Examples:", "fallback serve", "SIGTERM"}},
		{"health --help", 0, []string{"Examples:", "fallback health --addr"}},
		{"queues --help", 0, []string{"Examples:", "fallback queues --json"}},
		{"definitions --help", 0, []string{"Examples:", "fallback definitions --private"}},
		{"settings --help", 0, []string{"Examples:", "fallback settings --markdown"}},
		{"settings", 0, []string{"AMQP_SERVER_URL", "FALLBACK_QUEUE", "FallbackAPIQueue", "FALLBACK_TIMEOUT", "5s",
			"LOG_FORMAT"}},
		{"settings --markdown", 0, []string{"| `FALLBACK_QUEUE` | `FallbackAPIQueue` |",
			"| `FALLBACK_TIMEOUT` | `5s` |"}},
		{"--nonsense", 2, []string{"unknown flag: --nonsense", "fallback --help"}},
		{"nonsense", 2, []string{`unknown command "nonsense"`, "fallback --help"}},
		{"queues --nonsense", 2, []string{"unknown flag: --nonsense", "fallback --help"}},
		{"serve nonsense", 2, []string{"takes no arguments", "fallback --help"}},
	} {
		t.Run(cmp.Or(row.args, "nothing"), func(t *testing.T) {
			fallback.run(t, nil, strings.Fields(row.args)...).check(t, row.code, row.says, nil)
		})
	}
}

// testFaultySettings holds that a server tells every fault of its settings at once, and no secret.
func testFaultySettings(t *testing.T, fallback program) {
	o := fallback.run(t, harness.Settings{
		"AMQP_SERVER_URL":          "http://user:secret-of-the-broker@localhost",
		"RABBITMQ_MANAGEMENT_URL":  "ftp://monitor:secret-of-the-monitor@localhost",
		"FALLBACK_QUEUE":           "amq.mine",
		"FALLBACK_PATH_PREFIX":     "fallback",
		"FALLBACK_MAX_BODY_BYTES":  "many",
		"FALLBACK_TIMEOUT":         "1h",
		"FALLBACK_TOKENS":          "secret-token,",
		"FALLBACK_WEBHOOK_SECRETS": "whsec_c2VjcmV0",
		"LOG_LEVEL":                "loud",
		"LOG_FORMAT":               "xml",
	}, "serve")
	o.check(t, 1, []string{
		"AMQP_SERVER_URL: ", "RABBITMQ_MANAGEMENT_URL: ", "FALLBACK_QUEUE: ", "FALLBACK_PATH_PREFIX: ",
		"FALLBACK_MAX_BODY_BYTES: ",
		"FALLBACK_TIMEOUT: ", "FALLBACK_TOKENS: ", "LOG_LEVEL: ", "LOG_FORMAT: ",
	}, []string{"secret-of-the-broker", "secret-of-the-monitor", "secret-token", "c2VjcmV0"})
}

// testPrivateDefinitions holds that a broker which boots with private definitions lets in with the passwords of their
// env file and with no others, and that the server works on it.
func testPrivateDefinitions(t *testing.T, fallback program) {
	dir := filepath.Join(t.TempDir(), "private")
	fallback.run(t, nil, "definitions", "--private", dir).check(t, 0, []string{"wrote "}, nil)
	passwords := readEnv(t, filepath.Join(dir, "fallback.env"))
	variables := map[string]string{
		admin: "RABBITMQ_ADMIN_PASSWORD", publisher: "FALLBACK_PUBLISHER_PASSWORD",
		drainer: "FALLBACK_DRAINER_PASSWORD", monitor: "FALLBACK_MONITOR_PASSWORD",
	}

	private, err := harness.StartBroker(harness.BrokerOptions{Definitions: filepath.Join(dir, "definitions.json")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := harness.Run(harness.Patience, "docker", "logs", "--tail", "40", private.ID())
			t.Logf("the broker's log:\n%s", out)
		}
		if err := private.Close(); err != nil {
			t.Error(err)
		}
	})
	plain := func(user, password string) amqp.Authentication {
		return &amqp.PlainAuth{Username: user, Password: password}
	}
	harness.Eventually(t, "the broker to let the publisher in", func() bool {
		return logIn(private, plain(publisher, passwords[variables[publisher]])) == nil
	})
	for user, variable := range variables {
		t.Run(user, func(t *testing.T) {
			t.Parallel()
			if passwords[variable] == "" {
				t.Fatalf("%s is not in the env file", variable)
			}
			if err := logIn(private, plain(user, passwords[variable])); err != nil {
				t.Errorf("with %s: %v", variable, err)
			}
			if err := logIn(private, plain(user, topology.Demonstration(user).Plain)); !errors.Is(err,
				amqp.ErrCredentials) {
				t.Errorf("with the demonstration password: got %v, want %v", err, amqp.ErrCredentials)
			}
		})
	}
	t.Run("serve", func(t *testing.T) {
		t.Parallel()
		management := url.URL{Scheme: "http", Host: private.Management,
			User: url.UserPassword(monitor, passwords[variables[monitor]])}
		server := private.Main().Serve(t, harness.Settings{
			"AMQP_SERVER_URL": "amqp://" + publisher + ":" + passwords[variables[publisher]] + "@" +
				private.AMQP,
			"RABBITMQ_MANAGEMENT_URL": management.String(),
		})
		server.WaitReady(t)
		accepted(t, post(t, server, nil))
	})
	t.Run("imported", func(t *testing.T) {
		t.Parallel()
		management := url.URL{Scheme: "http", Host: private.Management,
			User: url.UserPassword(admin, passwords[variables[admin]])}
		want, err := topology.Of(articleQueue)
		if err != nil {
			t.Fatal(err)
		}
		checkImported(t, management.String(), want)
	})
}

// readEnv reads an env file.
func readEnv(t *testing.T, name string) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
			env[name] = value
		}
	}
	return env
}
