//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"fallback/functions/topology"
	"fallback/test/corpus"
	"fallback/test/harness"
)

// place is a platform that the door runs on as a function: what is different there. What is the same is held by the
// tests below, for each of the places.
type place struct {
	name string
	// deploy deploys the door until the test ends, with the platform's limit on an invocation, its default if that is
	// zero.
	deploy func(t *testing.T, amqpURL string, limit time.Duration) *door

	// What the platform makes of a request.
	id     string // the header that it adds, another each time
	idForm *regexp.Regexp
	// headers of its own, beside that and X-Forwarded-For, which take the place of the client's
	own                map[string]string
	joint, cookieJoint string                    // between the values of repeated headers
	isText             func(corpus.Request) bool // a body that is read as UTF-8

	bodies          []body // the largest that it takes, in each of the forms in which it hands them over
	tooLarge        body
	refusesMebibyte bool       // that of the corpus
	events          []oddEvent // two of them are put on the queue
}

type body struct {
	name, contentType string
	bytes             []byte
}

// oddEvent is one that no request makes, the status of its answer, and what the log says of it.
type oddEvent struct {
	name, event string
	want        int
	log         string
}

// inEachPlace runs a test for each of the places.
func inEachPlace(t *testing.T, test func(t *testing.T, at place)) {
	t.Parallel()
	for _, at := range []place{onDigitalOcean, onLambda} {
		t.Run(at.name, func(t *testing.T) {
			t.Parallel()
			test(t, at)
		})
	}
}

// door is the door, deployed: behind HTTP, and as what the platform has in hand.
type door struct {
	platform
	server string // http://host:port
	route  string // what comes before the request's own path
}

type platform interface {
	Invoke(ctx context.Context, event json.RawMessage) (json.RawMessage, error)
	Pause() error
	PID() int
	Starts() int
	Faults() []error
	Logs() string
	Close() error
}

func (d *door) addr() string { return strings.TrimPrefix(d.server, "http://") }

// post expects an answer in JSON.
func (d *door) post(t *testing.T, path, contentType string, body []byte) (status int, answer map[string]any) {
	t.Helper()
	response, err := http.Post(d.server+d.route+path, contentType, bytes.NewReader(body))
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

// send puts one request on the queue.
func (d *door) send(t *testing.T) {
	t.Helper()
	w := harness.StartWatch()
	if status, answer := d.post(t, "", "text/plain", []byte("x")); status != http.StatusAccepted {
		t.Fatalf("got %d %v", status, answer)
	}
	w.Hold(t, 5*time.Second, "the answer")
}

// checkOneProcess holds that the platform saw nothing fail, and had to start no second process.
func (d *door) checkOneProcess(t *testing.T) {
	t.Helper()
	if faults := d.Faults(); len(faults) > 0 || d.Starts() != 1 {
		t.Errorf("the platform saw faults: %v; %d processes were started", faults, d.Starts())
	}
}

// waitConnections waits until a user has that many connections to the virtual host, and names them.
func waitConnections(t *testing.T, vhost *harness.VHost, user string, want int) (names []string) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%d connections", want), func() bool {
		var rows []struct{ Name, VHost, User string }
		if err := vhost.Call(http.MethodGet, "/api/vhosts/"+vhost.Name+"/connections", nil, &rows); err != nil {
			t.Fatal(err)
		}
		names = nil
		for _, c := range rows {
			if c.VHost == vhost.Name && c.User == user {
				names = append(names, c.Name)
			}
		}
		return len(names) == want
	})
	return names
}

// checkProgram holds that what is uploaded is one small static program, without what only commands need.
func checkProgram(t *testing.T, program []byte, machine elf.Machine) {
	t.Helper()
	t.Logf("%s: %.1f MB", machine, float64(len(program))/1e6)
	if len(program) >= 10e6 {
		t.Errorf("%s: it has %d bytes, want less than 10 MB", machine, len(program))
	}
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	if file.Machine != machine || file.Class != elf.ELFCLASS64 {
		t.Errorf("it is for %s, want %s", file.Machine, machine)
	}
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s: it needs a dynamic loader", machine)
		}
	}
	linked, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil || len(linked.Deps) == 0 {
		t.Fatalf("%s: what is linked is not known: %v", machine, err)
	}
	for _, module := range linked.Deps {
		for _, foreign := range []string{"spf13", "cobra", "go-co-op", "gocron", "prometheus", "dockertest"} {
			if strings.Contains(module.Path, foreign) {
				t.Errorf("%s: it has %s in it: a command line, a scheduler and metrics are for the program", machine,
					module.Path)
			}
		}
	}
}

// TestCorpusInEachPlace holds that the door stores every request of the corpus as the platform hands it over: what
// differs from what the client sent is in alters, and nothing else differs.
func TestCorpusInEachPlace(t *testing.T) {
	inEachPlace(t, func(t *testing.T, at place) {
		vhost := broker.VHost(t)
		function := at.deploy(t, vhost.URL(topology.Publisher), 0)
		reader := vhost.Reader(t, topology.DefaultQueue)
		for _, in := range corpus.All() {
			t.Run(in.Name, func(t *testing.T) {
				response := sendRaw(t, function.addr(), function.routed(in.Raw))
				if in.Name == corpus.OneMebibyte && at.refusesMebibyte {
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
				want := at.alters(t, in, replay(t, message))
				want.Target = function.target(in.Target)
				checkSame(t, want, message)
				checkConnection(t, message, "https", "127.0.0.1")
			})
		}
	})
}

// routed is the same bytes, sent to the function's route instead of the server's prefix.
func (d *door) routed(raw []byte) []byte {
	head, rest, _ := bytes.Cut(raw, []byte(" /fallback"))
	target, rest, _ := bytes.Cut(rest, []byte(" "))
	return fmt.Appendf(nil, "%s %s %s", head, d.route+d.target("/fallback"+string(target)), rest)
}

// target is that of a request of the corpus as the function has it: where it has no route, there is no empty path.
func (d *door) target(target string) string {
	target = strings.TrimPrefix(target, "/fallback")
	if d.route == "" && !strings.HasPrefix(target, "/") {
		return "/" + target
	}
	return target
}

// alters is the request as the platform hands it to a function, in all that it changes and we cannot give back. Of the
// id that it adds, which is another each time, it takes got's.
func (at place) alters(t *testing.T, in corpus.Request, got corpus.Request) corpus.Request {
	t.Helper()
	var fields []corpus.Field
	for _, f := range in.Header {
		name := strings.ToLower(f.Name) // names in lower case
		switch name {
		case "expect", "te", "upgrade": // of the connection to the platform
			continue
		case "x-forwarded-for", at.id: // the platform's own take their place
			continue
		}
		if at.own[name] != "" {
			continue
		}
		value := toUTF8(f.Value) // what is not UTF-8 is damaged
		if i := indexOf(fields, name); i >= 0 {
			joint := at.joint
			if name == "cookie" {
				joint = at.cookieJoint
			}
			fields[i].Value += joint + value // repeated headers are joined
			continue
		}
		fields = append(fields, corpus.Field{Name: name, Value: value})
	}
	id := strings.Join(got.Values(at.id), ", ")
	if !at.idForm.MatchString(id) {
		t.Errorf("%s: got %q, want the platform's", at.id, id)
	}
	fields = append(fields,
		corpus.Field{Name: at.id, Value: id},
		corpus.Field{Name: "x-forwarded-for",
			Value: strings.Join(append(in.Values("x-forwarded-for"), "127.0.0.1"), ", ")},
	)
	for name, value := range at.own {
		fields = append(fields, corpus.Field{Name: name, Value: value})
	}
	out := in
	out.Header = fields
	out.Trailer = nil // trailers do not reach a function
	if at.isText(in) {
		out.Body = []byte(toUTF8(string(in.Body))) // text that is not UTF-8 is damaged
	}
	return out
}

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

func TestBodiesInEachPlace(t *testing.T) {
	inEachPlace(t, func(t *testing.T, at place) {
		vhost := broker.VHost(t)
		function := at.deploy(t, vhost.URL(topology.Publisher), 0)
		reader := vhost.Reader(t, topology.DefaultQueue)
		binary := make([]byte, 1000)
		for i := range binary {
			binary[i] = byte(i)
		}
		for _, row := range append([]body{
			{"text", "text/plain", []byte("hello")},
			{"JSON", "application/json", []byte(`{"a":"<é>"}`)},
			{"form", "application/x-www-form-urlencoded", []byte("a=%20")},
			{"binary", "application/octet-stream", binary},
			{"empty", "application/json", nil},
		}, at.bodies...) {
			t.Run(row.name, func(t *testing.T) {
				want := row
				if len(row.bytes) == 0 {
					want = body{"", "text/plain", []byte("A request has been sent via fallback API")}
				}
				status, answer := function.post(t, "/orders/42?x=1&x=2", row.contentType, row.bytes)
				if status != http.StatusAccepted {
					t.Fatalf("got %d %v", status, answer)
				}
				message := reader.Next(t)
				if message.MessageId != answer["id"] || answer["queue"] != topology.DefaultQueue {
					t.Errorf("answer %v for message %s", answer, message.MessageId)
				}
				if !bytes.Equal(message.Body, want.bytes) || message.ContentType != want.contentType {
					t.Errorf("got %d bytes of %s, want %d of %s", len(message.Body), message.ContentType,
						len(want.bytes), want.contentType)
				}
				if r := replay(t, message); r.Target != "/orders/42?x=1&x=2" || !bytes.Equal(r.Body, row.bytes) {
					t.Errorf("replayed as %s with %d bytes", r.Target, len(r.Body))
				}
			})
		}
		if status, answer := function.post(t, "/", at.tooLarge.contentType,
			at.tooLarge.bytes); status != http.StatusRequestEntityTooLarge {
			t.Errorf("%s, over the platform's limit: got %d %v", at.tooLarge.name, status, answer)
		}
	})
}

// TestEachPlaceStaysWarm holds that ten requests go through one process over one connection to the broker.
func TestEachPlaceStaysWarm(t *testing.T) {
	inEachPlace(t, func(t *testing.T, at place) {
		vhost := broker.VHost(t)
		function := at.deploy(t, vhost.URL(topology.Publisher), 0)
		pid := function.PID()
		function.send(t)
		first := waitConnections(t, vhost, topology.Publisher, 1)
		for range 9 {
			function.send(t)
		}
		if last := waitConnections(t, vhost, topology.Publisher, 1); last[0] != first[0] {
			t.Errorf("connection %s, it began with %s", last[0], first[0])
		}
		if function.PID() != pid {
			t.Errorf("process %d, it began with %d", function.PID(), pid)
		}
		function.checkOneProcess(t)
		if n := vhost.Count(t, topology.DefaultQueue); n != 10 {
			t.Errorf("%d messages on the queue, want 10", n)
		}
	})
}

// TestEachPlaceThaws freezes a warm function for longer than two heartbeats, until the broker has given its connection
// up, and expects the next request to be stored all the same; then for a moment only, and expects the old connection.
func TestEachPlaceThaws(t *testing.T) {
	inEachPlace(t, func(t *testing.T, at place) {
		vhost := broker.VHost(t)
		function := at.deploy(t, vhost.URL(topology.Publisher)+"?heartbeat=2", 0)
		pause := func() {
			t.Helper()
			if err := function.Pause(); err != nil {
				t.Fatal(err)
			}
		}
		function.send(t)
		before := waitConnections(t, vhost, topology.Publisher, 1)
		pause()
		waitConnections(t, vhost, topology.Publisher, 0)
		function.send(t) // the platform thaws it
		after := waitConnections(t, vhost, topology.Publisher, 1)
		if before[0] == after[0] {
			t.Error("the connection should be a new one")
		}
		pause()
		function.send(t)
		if again := waitConnections(t, vhost, topology.Publisher, 1); again[0] != after[0] {
			t.Error("the connection should be the old one")
		}
		if n := vhost.Count(t, topology.DefaultQueue); n != 3 {
			t.Errorf("%d messages on the queue, want 3", n)
		}
		function.checkOneProcess(t)
	})
}

func TestOddEventsInEachPlace(t *testing.T) {
	inEachPlace(t, func(t *testing.T, at place) {
		vhost := broker.VHost(t)
		function := at.deploy(t, vhost.URL(topology.Publisher), 0)
		for _, row := range at.events {
			t.Run(row.name, func(t *testing.T) {
				before := len(function.Logs())
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
				if row.log != "" {
					harness.Eventually(t, "the log to say "+row.log,
						func() bool { return strings.Contains(function.Logs()[before:], row.log) })
				}
			})
		}
		if n := vhost.Count(t, topology.DefaultQueue); n != 2 {
			t.Errorf("%d messages on the queue, want 2", n)
		}
		function.checkOneProcess(t)
	})
}

// TestEachPlaceWithoutBroker holds that a failure of ours is an ordinary 503 answer before the platform's deadline,
// and that the process lives on: a Go error, an exit or a time-out would be the platform's own answer, which on one of
// them is a 400 that senders do not try again.
func TestEachPlaceWithoutBroker(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections into its backlog and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	inEachPlace(t, func(t *testing.T, at place) {
		for _, row := range []struct {
			name, url, want string
			limit           time.Duration
		}{
			{"refused", "amqp://user:secret@127.0.0.1:1/", "urn:fallback:problem:broker-unavailable", 2 * time.Second},
			{"silent", "amqp://user:secret@" + silent.Addr().String() + "/", "urn:fallback:problem:broker-unavailable",
				2 * time.Second},
			{"silent, with little time", "amqp://user:secret@" + silent.Addr().String() + "/",
				"urn:fallback:problem:broker-unavailable", 600 * time.Millisecond},
			{"not set", "", "urn:fallback:problem:not-configured", 2 * time.Second},
			{"not a URL", "amqp://user:se cret@/", "urn:fallback:problem:not-configured", 2 * time.Second},
		} {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				function := at.deploy(t, row.url, row.limit)
				for range 2 {
					status, answer := function.post(t, "/orders", "text/plain", []byte("x"))
					if status != http.StatusServiceUnavailable || answer["type"] != row.want {
						t.Errorf("got %d %v, want 503 %s", status, answer, row.want)
					}
				}
				function.checkOneProcess(t)
				if strings.Contains(function.Logs(), "secret") || strings.Contains(function.Logs(), "se cret") {
					t.Errorf("the log shows the password:\n%s", function.Logs())
				}
			})
		}
	})
}

// TestDeadlineNearInEachPlace holds that a request for which no time is left gets its answer all the same, and is not
// stored after it.
func TestDeadlineNearInEachPlace(t *testing.T) {
	inEachPlace(t, func(t *testing.T, at place) {
		vhost := broker.VHost(t)
		function := at.deploy(t, vhost.URL(topology.Publisher), 240*time.Millisecond)
		for range 3 {
			if status, answer := function.post(t, "/", "text/plain",
				[]byte("x")); status != http.StatusServiceUnavailable {
				t.Errorf("got %d %v", status, answer)
			}
		}
		function.checkOneProcess(t)
		if n := vhost.Count(t, topology.DefaultQueue); n != 0 {
			t.Errorf("%d messages on the queue, want none", n)
		}
	})
}

// TestRoundTripsInEachPlace counts the round trips to the broker that a client of the function waits for. Cold: TCP,
// the protocol header, start-ok, open (with tune-ok before it), channel.open, confirm.select, and the publish: seven,
// and one more over TLS. Warm: the publish.
func TestRoundTripsInEachPlace(t *testing.T) {
	inEachPlace(t, func(t *testing.T, at place) {
		vhost := broker.VHost(t)
		far, err := harness.Far(broker.AMQP, 20*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(far.Close)
		function := at.deploy(t, strings.Replace(vhost.URL(topology.Publisher), broker.AMQP, far.Addr, 1), 0)
		for i, most := range []int64{7, 1, 1, 1} {
			before, start := far.RoundTrips(), time.Now()
			function.send(t)
			trips := far.RoundTrips() - before
			t.Logf("call %d: %d round trips of 20 ms, %s", i+1, trips, time.Since(start))
			if trips < 1 || trips > most {
				t.Errorf("call %d waits for %d round trips, want at most %d", i+1, trips, most)
			}
		}
	})
}
