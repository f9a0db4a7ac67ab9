//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"fallback/functions/topology"
	"fallback/test/corpus"
	"fallback/test/deploy"
	"fallback/test/harness"
)

// buildEnqueue runs the function's build.sh as the deployer does and returns the one file that is uploaded.
var buildEnqueue = sync.OnceValues(func() (string, error) {
	folder := filepath.Join(harness.Root(), "packages", "fallback", "enqueue")
	if out, err := exec.Command(filepath.Join(folder, "build.sh")).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build.sh: %w\n%s", err, out)
	}
	return filepath.Join(folder, "exec"), nil
})

// gateway is a deployed function behind the platform's web gateway.
type gateway struct {
	*deploy.Function
	url string // of the function's route
}

// deployEnqueue deploys the function, with a limit on bodies that leaves the platform's own as the one that is met.
func deployEnqueue(t *testing.T, amqpURL string, config deploy.Config) *gateway {
	t.Helper()
	program, err := buildEnqueue()
	if err != nil {
		t.Fatal(err)
	}
	config.Exec = program
	config.Env = map[string]string{"AMQP_SERVER_URL": amqpURL, "FALLBACK_TIMEOUT": "5s", "FALLBACK_MAX_BODY_BYTES": "1048576"}
	f, err := deploy.Start(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(f)
	t.Cleanup(func() {
		server.Close()
		if err := f.Close(); err != nil {
			t.Errorf("the function ended with %v", err)
		}
		if t.Failed() {
			t.Logf("the function's log:\n%s", f.Logs())
		}
	})
	return &gateway{f, server.URL + f.Route()}
}

func (g *gateway) post(t *testing.T, path, contentType string, body []byte) (status int, answer map[string]any) {
	t.Helper()
	response, err := http.Post(g.url+path, contentType, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		t.Fatalf("%s: %v in %q", response.Status, err, raw)
	}
	return response.StatusCode, answer
}

func TestFunctionIsOneSmallStaticFile(t *testing.T) {
	t.Parallel()
	program, err := buildEnqueue()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("exec has %.1f MB", float64(info.Size())/1e6)
	if info.Size() >= 10e6 {
		t.Errorf("exec has %d bytes, want less than 10 MB", info.Size())
	}
	file, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if file.Machine != elf.EM_X86_64 || file.Class != elf.ELFCLASS64 {
		t.Errorf("exec is for %s", file.Machine)
	}
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("exec needs a dynamic loader")
		}
	}
}

// TestCorpusThroughFunction holds that the function stores every request of the corpus as the platform hands it over:
// what differs from what the client sent is in platformAlters, and nothing else differs.
func TestCorpusThroughFunction(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	function := deployEnqueue(t, vhost.URL(topology.Publisher), deploy.Config{})
	address, err := url.Parse(function.url)
	if err != nil {
		t.Fatal(err)
	}
	reader := vhost.Reader(t, topology.DefaultQueue)
	for _, in := range corpus.All() {
		t.Run(in.Name, func(t *testing.T) {
			// The same bytes, sent to the function's route instead of the server's prefix.
			raw := bytes.Replace(in.Raw, []byte(" /fallback"), []byte(" "+function.Route()), 1)
			response := sendRaw(t, address.Host, raw)
			if in.Name == corpus.OneMebibyte {
				if response.StatusCode != http.StatusRequestEntityTooLarge {
					t.Errorf("1 MiB as base64 is over the platform's limit: got %s, want 413", response.Status)
				}
				return
			}
			if response.StatusCode != http.StatusAccepted {
				body, _ := io.ReadAll(response.Body)
				t.Fatalf("answer: %s %s", response.Status, body)
			}
			message := reader.Next(t)
			if id := response.Header.Get("Fallback-Id"); message.MessageId != id {
				t.Fatalf("message id %q, Fallback-Id %q", message.MessageId, id)
			}
			checkSame(t, platformAlters(t, in, replay(t, message)), message)
			checkConnection(t, message, "https", "127.0.0.1")
		})
	}
}

// platformAlters is the request as the platform hands it to a function, in all that it changes and we cannot give back.
// Of the id that it adds, which is another each time, it takes got's.
func platformAlters(t *testing.T, in corpus.Request, got corpus.Request) corpus.Request {
	t.Helper()
	var fields []corpus.Field
	for _, f := range in.Header {
		name := strings.ToLower(f.Name) // names in lower case
		switch name {
		case "expect", "te", "upgrade": // of the connection to the platform
			continue
		case "x-forwarded-for", "x-forwarded-proto", "x-request-id": // the platform's own take their place
			continue
		}
		value := toUTF8(f.Value) // what is not UTF-8 is damaged
		if i := indexOf(fields, name); i >= 0 {
			fields[i].Value += ", " + value // repeated headers are joined
			continue
		}
		fields = append(fields, corpus.Field{Name: name, Value: value})
	}
	id := strings.Join(got.Values("x-request-id"), ", ")
	if !requestID.MatchString(id) {
		t.Errorf("x-request-id: got %q, want the platform's", id)
	}
	fields = append(fields,
		corpus.Field{Name: "x-forwarded-for", Value: strings.Join(append(in.Values("x-forwarded-for"), "127.0.0.1"), ", ")},
		corpus.Field{Name: "x-forwarded-proto", Value: "https"},
		corpus.Field{Name: "x-request-id", Value: id},
	)
	out := in
	out.Header = fields
	out.Trailer = nil // trailers do not reach a function
	if contentType := strings.Join(in.Values("Content-Type"), ""); strings.HasPrefix(contentType, "text/") {
		out.Body = []byte(toUTF8(string(in.Body))) // text is read as UTF-8 whatever its charset is
	}
	return out
}

// requestID is the form of the platform's.
var requestID = regexp.MustCompile(`^[0-9a-f]{32}$`)

func indexOf(fields []corpus.Field, name string) int {
	for i, f := range fields {
		if f.Name == name {
			return i
		}
	}
	return -1
}

// toUTF8 puts U+FFFD for each byte that is not UTF-8.
func toUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

func TestFunctionBodies(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	function := deployEnqueue(t, vhost.URL(topology.Publisher), deploy.Config{})
	reader := vhost.Reader(t, topology.DefaultQueue)
	binary := make([]byte, 1000)
	for i := range binary {
		binary[i] = byte(i)
	}
	for _, row := range []struct {
		name, contentType string
		body, want        []byte
		wantType          string
	}{
		{"text", "text/plain", []byte("hello"), []byte("hello"), "text/plain"},
		{"JSON", "application/json", []byte(`{"a":1}`), []byte(`{"a":1}`), "application/json"},
		{"binary", "application/octet-stream", binary, binary, "application/octet-stream"},
		{"empty", "application/json", nil, []byte("A request has been sent via fallback API"), "text/plain"},
		{"900 KB", "text/plain", bytes.Repeat([]byte("0123456789"), 90_000), bytes.Repeat([]byte("0123456789"), 90_000), "text/plain"},
	} {
		t.Run(row.name, func(t *testing.T) {
			status, answer := function.post(t, "/orders/42?x=1&x=2", row.contentType, row.body)
			if status != http.StatusAccepted {
				t.Fatalf("got %d %v", status, answer)
			}
			message := reader.Next(t)
			if message.MessageId != answer["id"] || answer["queue"] != topology.DefaultQueue {
				t.Errorf("answer %v for message %s", answer, message.MessageId)
			}
			if !bytes.Equal(message.Body, row.want) || message.ContentType != row.wantType {
				t.Errorf("got %d bytes of %s, want %d of %s", len(message.Body), message.ContentType, len(row.want), row.wantType)
			}
			if r := replay(t, message); r.Target != "/orders/42?x=1&x=2" || !bytes.Equal(r.Body, row.body) {
				t.Errorf("replayed as %s with %d bytes", r.Target, len(r.Body))
			}
		})
	}
}

// TestFunctionStaysWarm holds that ten requests go through one process over one connection to the broker.
func TestFunctionStaysWarm(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	function := deployEnqueue(t, vhost.URL(topology.Publisher), deploy.Config{})
	pid := function.PID()
	send := func() {
		if status, answer := function.post(t, "", "text/plain", []byte("x")); status != http.StatusAccepted {
			t.Fatalf("got %d %v", status, answer)
		}
	}
	send()
	first := waitConnections(t, vhost, 1)
	for range 9 {
		send()
	}
	if last := waitConnections(t, vhost, 1); last[0] != first[0] {
		t.Errorf("connection %s, it began with %s", last[0], first[0])
	}
	if function.PID() != pid || function.Starts() != 1 {
		t.Errorf("%d processes were started", function.Starts())
	}
	if n := vhost.Count(t, topology.DefaultQueue); n != 10 {
		t.Errorf("%d messages on the queue, want 10", n)
	}
}

// waitConnections waits until the publisher's user has that many connections to the virtual host, and names them.
func waitConnections(t *testing.T, vhost *harness.VHost, want int) (names []string) {
	t.Helper()
	harness.Eventually(t, 90*time.Second, fmt.Sprintf("%d connections", want), func() bool {
		out, err := vhost.Exec(context.Background(), "rabbitmqctl", "-q", "--formatter", "json", "list_connections", "name", "vhost", "user")
		if err != nil {
			t.Fatal(err)
		}
		var rows []struct{ Name, VHost, User string }
		if err := json.Unmarshal([]byte(out), &rows); err != nil {
			t.Fatalf("%v in %q", err, out)
		}
		names = nil
		for _, c := range rows {
			if c.VHost == vhost.Name && c.User == topology.Publisher {
				names = append(names, c.Name)
			}
		}
		return len(names) == want
	})
	return names
}

// TestFunctionThaws freezes a warm function for longer than two heartbeats, until the broker has given its connection
// up, and expects the next request to be stored all the same; then for a moment only, and expects the old connection.
func TestFunctionThaws(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	function := deployEnqueue(t, vhost.URL(topology.Publisher)+"?heartbeat=2", deploy.Config{})
	send := func() {
		t.Helper()
		start := time.Now()
		if status, answer := function.post(t, "", "text/plain", []byte("x")); status != http.StatusAccepted {
			t.Fatalf("got %d %v", status, answer)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("the answer took %s", took)
		}
	}
	send()
	before := waitConnections(t, vhost, 1)
	if err := function.Pause(); err != nil {
		t.Fatal(err)
	}
	waitConnections(t, vhost, 0)
	send() // the gateway thaws it
	after := waitConnections(t, vhost, 1)
	if before[0] == after[0] {
		t.Error("the connection should be a new one")
	}
	if err := function.Pause(); err != nil {
		t.Fatal(err)
	}
	send()
	if again := waitConnections(t, vhost, 1); again[0] != after[0] {
		t.Error("the connection should be the old one")
	}
	if n := vhost.Count(t, topology.DefaultQueue); n != 3 {
		t.Errorf("%d messages on the queue, want 3", n)
	}
	if function.Starts() != 1 {
		t.Errorf("%d processes were started", function.Starts())
	}
}

func TestFunctionOddEvents(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	function := deployEnqueue(t, vhost.URL(topology.Publisher), deploy.Config{})
	for _, row := range []struct {
		name, event string
		want        int
	}{
		{"no http: a trigger that keeps warm", `{"ping":true}`, http.StatusOK},
		{"empty", `{}`, http.StatusOK},
		{"http of the wrong shape", `{"http":5}`, http.StatusInternalServerError},
		{"header of the wrong shape", `{"http":{"method":"POST","headers":{"a":1}}}`, http.StatusInternalServerError},
		{"body that is not base64", `{"http":{"method":"POST","body":"%","isBase64Encoded":true}}`, http.StatusInternalServerError},
		{"method in lower case", `{"http":{"method":"post","path":"orders","body":"x"}}`, http.StatusAccepted},
		{"path that was decoded", `{"http":{"method":"POST","path":"/a b\nc","body":"x"}}`, http.StatusAccepted},
		{"not queued", `{"http":{"method":"GET","path":""}}`, http.StatusServiceUnavailable},
	} {
		t.Run(row.name, func(t *testing.T) {
			result, err := function.Invoke(context.Background(), json.RawMessage(row.event))
			if err != nil {
				t.Fatal(err)
			}
			var response struct{ StatusCode int }
			if err := json.Unmarshal(result, &response); err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != row.want {
				t.Errorf("got %s, want %d", result, row.want)
			}
		})
	}
	if n := vhost.Count(t, topology.DefaultQueue); n != 2 {
		t.Errorf("%d messages on the queue, want 2", n)
	}
	if faults := function.Faults(); len(faults) > 0 {
		t.Errorf("the platform saw faults: %v", faults)
	}
}

// TestFunctionWithoutBroker holds that a failure of ours is an ordinary 503 answer before the platform's deadline:
// a Go error, an exit or a time-out would be a 400, which senders do not try again.
func TestFunctionWithoutBroker(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections into its backlog and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	for _, row := range []struct{ name, url, want string }{
		{"refused", "amqp://user:secret@127.0.0.1:1/", "urn:fallback:problem:broker-unavailable"},
		{"silent", "amqp://user:secret@" + silent.Addr().String() + "/", "urn:fallback:problem:broker-unavailable"},
		{"not set", "", "urn:fallback:problem:not-configured"},
		{"not a URL", "amqp://user:se cret@/", "urn:fallback:problem:not-configured"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			function := deployEnqueue(t, row.url, deploy.Config{Timeout: 2 * time.Second})
			for range 2 {
				status, answer := function.post(t, "/orders", "text/plain", []byte("x"))
				if status != http.StatusServiceUnavailable || answer["type"] != row.want {
					t.Errorf("got %d %v, want 503 %s", status, answer, row.want)
				}
			}
			if faults := function.Faults(); len(faults) > 0 {
				t.Errorf("the platform saw faults: %v", faults)
			}
			if strings.Contains(function.Logs(), "secret") || strings.Contains(function.Logs(), "se cret") {
				t.Errorf("the log shows the password:\n%s", function.Logs())
			}
		})
	}
}

// TestFunctionRoundTrips counts the round trips to the broker that a client of the function waits for. Cold: TCP, the
// protocol header, start-ok, open (with tune-ok before it), channel.open, confirm.select, and the
// publish: seven, and one more over TLS. Warm: the publish.
func TestFunctionRoundTrips(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	far, err := harness.Far(broker.AMQP, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(far.Close)
	function := deployEnqueue(t, strings.Replace(vhost.URL(topology.Publisher), broker.AMQP, far.Addr, 1), deploy.Config{})
	send := func() (trips int64, took time.Duration) {
		t.Helper()
		before, start := far.RoundTrips(), time.Now()
		if status, answer := function.post(t, "", "text/plain", []byte("x")); status != http.StatusAccepted {
			t.Fatalf("got %d %v", status, answer)
		}
		return far.RoundTrips() - before, time.Since(start)
	}
	trips, took := send()
	t.Logf("cold: %d round trips of 20 ms, %s", trips, took)
	if trips > 7 {
		t.Errorf("a cold call waits for %d round trips, want at most 7", trips)
	}
	for range 3 {
		trips, took = send()
		t.Logf("warm: %d round trip, %s", trips, took)
		if trips != 1 {
			t.Errorf("a warm call waits for %d round trips, want 1", trips)
		}
	}
}
