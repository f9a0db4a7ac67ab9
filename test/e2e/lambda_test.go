//go:build e2e

package e2e

import (
	"archive/zip"
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"fallback/functions/drain"
	"fallback/functions/topology"
	"fallback/test/corpus"
	"fallback/test/deploy"
	"fallback/test/harness"
)

// buildLambda makes what is uploaded, and returns the folder of it.
var buildLambda = sync.OnceValues(func() (string, error) {
	if _, err := harness.Run(harness.Patience, "make", "lambda"); err != nil {
		return "", err
	}
	return filepath.Join(harness.Root(), "dist"), nil
})

// deployLambda deploys the bootstrap of this host's processor with an environment as template.yaml gives it.
func deployLambda(t *testing.T, env map[string]string, config deploy.LambdaConfig) *door {
	t.Helper()
	dist, err := buildLambda()
	if err != nil {
		t.Fatal(err)
	}
	config.Bootstrap = filepath.Join(dist, "lambda-"+runtime.GOARCH, "bootstrap")
	config.Env, config.Extra = maps.Clone(env), harness.Slack
	l, err := deploy.StartLambda(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(l)
	t.Cleanup(func() {
		server.Close()
		if err := l.Close(); err != nil {
			t.Errorf("the Lambda ended with %v", err)
		}
		if t.Failed() {
			t.Logf("the Lambda's log:\n%s", l.Logs())
		}
	})
	return &door{l, server.URL, ""}
}

// deployDoor is deployLambda for the door.
func deployDoor(t *testing.T, amqpURL string, config deploy.LambdaConfig) *door {
	t.Helper()
	return deployLambda(t, map[string]string{"AMQP_SERVER_URL": amqpURL, "FALLBACK_MAX_BODY_BYTES": "6291456"}, config)
}

// onLambda is the Lambda behind its Function URL.
var onLambda = place{
	name: "AWS Lambda",
	deploy: func(t *testing.T, amqpURL string, limit time.Duration) *door {
		t.Helper()
		return deployDoor(t, amqpURL, deploy.LambdaConfig{Timeout: limit})
	},
	id: "x-amzn-trace-id", idForm: regexp.MustCompile(`^Root=1-[0-9a-f]{8}-[0-9a-f]{24}$`),
	own:   map[string]string{"x-forwarded-port": "443", "x-forwarded-proto": "https"},
	joint: ",", cookieJoint: "; ",
	isText: func(in corpus.Request) bool {
		contentType := strings.Join(in.Values("Content-Type"), "")
		return len(in.Values("Content-Encoding")) == 0 &&
			(strings.HasPrefix(contentType, "text/") || strings.HasPrefix(contentType, "application/json"))
	},
	bodies: []body{
		{"5.5 MB of text", "text/plain", bytes.Repeat([]byte("0123456789"), 550_000)},
		{"4.4 MB of bytes, nearly all that fits in base64", "image/png",
			bytes.Repeat([]byte("\x00\x01\xfe\xff"), 1_100_000)},
	},
	tooLarge: body{"8.8 MB of bytes", "image/png", bytes.Repeat([]byte("\x00\x01\xfe\xff"), 2_200_000)},
	events: []oddEvent{
		{"not JSON", `{`, http.StatusInternalServerError, "an event could not be read"},
		{"a number", `7`, http.StatusInternalServerError, "an event could not be read"},
		{"by hand", `{"ping":true}`, http.StatusInternalServerError, "an event of an unknown kind"},
		{"payload format 1.0", `{"httpMethod":"POST","path":"/orders","requestContext":{"stage":"prod"}}`,
			http.StatusInternalServerError, `"httpMethod"`},
		{"header of the wrong shape", `{"requestContext":{"http":{"method":"POST"}},"headers":{"a":1}}`,
			http.StatusInternalServerError, "an event could not be read"},
		{"body that is not base64", `{"requestContext":{"http":{"method":"POST"}},"body":"%","isBase64Encoded":true}`,
			http.StatusInternalServerError, "an event could not be read"},
		{"no path", `{"requestContext":{"http":{"method":"POST"}},"body":"x"}`, http.StatusAccepted, ""},
		{"path that was decoded", `{"requestContext":{"http":{"method":"POST"}},"rawPath":"/a b\nc","body":"x"}`,
			http.StatusAccepted, ""},
		{"not queued", `{"requestContext":{"http":{"method":"GET"}},"rawPath":"/orders"}`,
			http.StatusServiceUnavailable, ""},
	},
}

// TestLambdaIsSmallAndStatic holds what is uploaded: for each processor a zip with one static program, without what
// only commands need.
func TestLambdaIsSmallAndStatic(t *testing.T) {
	t.Parallel()
	dist, err := buildLambda()
	if err != nil {
		t.Fatal(err)
	}
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		archive, err := zip.OpenReader(filepath.Join(dist, "lambda-"+arch+".zip"))
		if err != nil {
			t.Fatal(err)
		}
		defer archive.Close()
		if len(archive.File) != 1 || archive.File[0].Name != "bootstrap" || archive.File[0].Mode().Perm() != 0o755 {
			t.Fatalf("%s: the zip has %+v", arch, archive.File)
		}
		entry, err := archive.File[0].Open()
		if err != nil {
			t.Fatal(err)
		}
		program, err := io.ReadAll(entry)
		if err != nil {
			t.Fatal(err)
		}
		checkProgram(t, program, machine)
	}
}

// TestLambdaOutsideThePlatform holds that who runs it by hand is told what it is.
func TestLambdaOutsideThePlatform(t *testing.T) {
	t.Parallel()
	dist, err := buildLambda()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(filepath.Join(dist, "lambda-"+runtime.GOARCH, "bootstrap"))
	command.Env = []string{}
	if out, err := command.CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "for a server use: fallback serve") {
		t.Errorf("got %v and %s", err, out)
	}
}

// TestLambdaBehindAnAPI holds what an HTTP API with a stage does to a request, and what of it is undone.
func TestLambdaBehindAnAPI(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	function := deployDoor(t, vhost.URL(topology.Publisher), deploy.LambdaConfig{Stage: "prod"})
	reader := vhost.Reader(t, topology.DefaultQueue)
	for path, want := range map[string]string{
		"/orders/42?x=%20&x=1":  "/orders/42?x=%20&x=1",
		"/":                     "/",
		"/prod/a":               "/prod/a",
		"/a%20b%3Fc%23d%25%C3%": "", // not a path
		"/a%20b%3Fc%23d%25%C3":  "/a%20b%3Fc%23d%25%EF%BF%BD",
		"/caf%C3%A9":            "/caf%C3%A9",
	} {
		raw := "POST " + path + " HTTP/1.1\r\nHost: api.example.com\r\nCookie: a=1; b=2\r\nContent-Type: " +
			"text/plain\r\nContent-Length: 1\r\n\r\nx"
		response := sendRaw(t, function.addr(), []byte(raw))
		if want == "" {
			if response.StatusCode != http.StatusBadRequest {
				t.Errorf("%s: %s", path, response.Status)
			}
			continue
		}
		if response.StatusCode != http.StatusAccepted {
			t.Fatalf("%s: %s", path, response.Status)
		}
		got := replay(t, reader.Next(t))
		if got.Target != want || strings.Join(got.Values("Cookie"), "|") != "a=1; b=2" {
			t.Errorf("%s: got %s with cookies %q, want %s", path, got.Target, got.Values("Cookie"), want)
		}
	}
}

// TestLambdaIsTold holds that a Lambda which is to end, be it the door or the drain, frozen or not, closes its
// connection to the broker in order, exits well, and does both in the time that the platform gives it.
func TestLambdaIsTold(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, user string
		frozen     bool
	}{
		{"the door", topology.Publisher, false},
		{"the door, frozen", topology.Publisher, true},
		{"the drain", topology.Drainer, false},
		{"the drain, frozen", topology.Drainer, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			vhost := broker.VHost(t)
			address, sent := tap(t, broker.AMQP)
			function := deployLambda(t, map[string]string{
				"AMQP_SERVER_URL":     strings.Replace(vhost.URL(row.user), broker.AMQP, address, 1),
				"FALLBACK_TARGET_URL": "http://127.0.0.1:1", // never asked: nothing waits
			}, deploy.LambdaConfig{})
			if row.user == topology.Publisher {
				function.send(t)
			} else if result, err := function.Invoke(t.Context(), scheduleEvent(t)); err != nil ||
				!bytes.Contains(result, []byte("the queue is empty")) {
				t.Fatalf("%s, %v", result, err)
			}
			if row.frozen {
				if err := function.Pause(); err != nil {
					t.Fatal(err)
				}
			}
			goodbye := []byte{0, 10, 0, 50} // connection.close
			if bytes.Contains(sent(), goodbye) {
				t.Error("it was closed before")
			}
			end := harness.StartWatch()
			if err := function.Close(); err != nil {
				t.Error(err)
			}
			end.Hold(t, 500*time.Millisecond, "its end") // as long as the platform waits
			t.Logf("ended within %s", end.Elapsed())
			harness.Eventually(t, "a good-bye: else the connection broke off",
				func() bool { return bytes.Contains(sent(), goodbye) })
			waitConnections(t, vhost, row.user, 0)
		})
	}
}

func scheduleEvent(t *testing.T) []byte {
	t.Helper()
	event, err := os.ReadFile(filepath.Join(harness.Root(), "functions", "awslambda", "testdata", "schedule-rule.json"))
	if err != nil {
		t.Fatal(err)
	}
	return event
}

// tap is a way to target, at an address of its own, that keeps what is sent to it.
func tap(t *testing.T, target string) (address string, sent func() []byte) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	kept := &harness.Log{}
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if err != nil {
				near.Close()
				return
			}
			go func() {
				_, _ = io.Copy(io.MultiWriter(kept, far), near)
				far.Close()
			}()
			go func() {
				_, _ = io.Copy(near, far)
				near.Close()
			}()
		}
	}()
	return listener.Addr().String(), func() []byte { return []byte(kept.String()) }
}

// TestLambdaDrains holds that an event of a schedule delivers what waits and reports it, and that a run ends before the
// invocation does while the primary is down.
func TestLambdaDrains(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, nil)
	limit := drain.Grace + 4*time.Second
	function := deployLambda(t, map[string]string{
		"AMQP_SERVER_URL": vhost.URL(topology.Drainer), "FALLBACK_TARGET_URL": primary.URL,
		"FALLBACK_TARGET_TIMEOUT": "1s",
	}, deploy.LambdaConfig{Timeout: limit})
	run := func() (r drain.Report, took harness.Elapsed) {
		t.Helper()
		w := harness.StartWatch()
		result, err := function.Invoke(context.Background(), scheduleEvent(t))
		if took = w.Elapsed(); err != nil || json.Unmarshal(result, &r) != nil {
			t.Fatalf("after %s: %s, %v", took, result, err)
		}
		return r, took
	}
	enqueue(t, server, 3, "/orders")
	if r, _ := run(); r.Delivered != 3 || r.Waiting != 0 || r.End != "the queue is empty" {
		t.Errorf("got %+v", r)
	}
	checkOnce(t, primary, 3, "/orders")
	connection := waitConnections(t, vhost, topology.Drainer, 1)

	if err := function.Pause(); err != nil {
		t.Fatal(err)
	}
	enqueue(t, server, 3, "/thawed")
	if r, _ := run(); r.Delivered != 3 || r.Waiting != 0 {
		t.Errorf("after a moment's freeze: got %+v", r)
	}
	checkOnce(t, primary, 3, "/thawed")
	if last := waitConnections(t, vhost, topology.Drainer, 1); last[0] != connection[0] || function.Starts() != 1 {
		t.Errorf("connection %s, it began with %s; %d starts", last[0], connection[0], function.Starts())
	}

	primary.Down()
	enqueue(t, server, 2, "/orders")
	if r, took := run(); r.Delivered != 0 || r.Waiting != 2 || r.End != "its time is over" || took.Over(limit) {
		t.Errorf("with the primary down: got %+v after %s", r, took)
	}
	primary.Up(t)
	if r, _ := run(); r.Delivered != 2 || r.Waiting != 0 {
		t.Errorf("when it is back: got %+v", r)
	}

	// The door's function has no primary; should a schedule call it, it says so, and the platform does not try again.
	door := deployDoor(t, vhost.URL(topology.Publisher), deploy.LambdaConfig{})
	if result, err := door.Invoke(context.Background(), scheduleEvent(t)); err != nil ||
		!strings.Contains(string(result), "FALLBACK_TARGET_URL: not set") {
		t.Errorf("got %s, %v", result, err)
	}
}
