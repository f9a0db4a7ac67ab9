//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fallback/functions/drain"
	"fallback/functions/topology"
	"fallback/test/corpus"
	"fallback/test/deploy"
	"fallback/test/harness"
)

// drainFunction is a deployed drain, with the platform's limit on an invocation.
type drainFunction struct {
	*deploy.Function
	limit time.Duration
}

// deployDrain deploys the function as project.yml does, but for the limit, and with settings beside.
func deployDrain(t *testing.T, amqpURL, primaryURL string, limit time.Duration,
	settings map[string]string) *drainFunction {
	t.Helper()
	env := map[string]string{"AMQP_SERVER_URL": amqpURL, "FALLBACK_TARGET_URL": primaryURL}
	for name, value := range settings {
		env[name] = value
	}
	return &drainFunction{deployFunction(t, "drain", deploy.Config{Env: env, Web: "false", Timeout: limit}), limit}
}

// run invokes the function as a trigger does, and holds that it has answered before the platform's limit.
func (f *drainFunction) run(t *testing.T) (r drain.Report, run harness.Elapsed) {
	t.Helper()
	w := harness.StartWatch()
	result, err := f.Invoke(context.Background(), json.RawMessage(`{}`))
	run = w.Elapsed()
	if err != nil {
		t.Fatalf("after %s: %v", run, err)
	}
	if err := json.Unmarshal(result, &r); err != nil || r.End == "" {
		t.Fatalf("%v in %s", err, result)
	}
	if run.Over(f.limit) {
		t.Errorf("the answer took %s, the limit is %s", run, f.limit)
	}
	return r, run
}

// TestDrainFunction holds that the deployed program gives the primary, byte for byte, what clients sent, and reports
// it.
func TestDrainFunction(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, nil)
	function := deployDrain(t, vhost.URL(topology.Drainer), primary.URL, time.Minute,
		map[string]string{"FALLBACK_DRAIN_CONCURRENCY": "1"})
	if r, _ := function.run(t); r.Delivered != 0 || r.Waiting != 0 || r.End != "the queue is empty" {
		t.Errorf("of nothing: got %+v", r)
	}
	var sent []corpus.Request
	for _, in := range corpus.All() {
		switch in.Name {
		case "multipart-png", "latin1-header", "odd-query", "chunked-trailer", "no-body", corpus.OneMebibyte:
			if answer := sendRaw(t, server.Addr, in.Raw); answer.StatusCode != http.StatusAccepted {
				t.Fatalf("%s: %s", in.Name, answer.Status)
			}
			sent = append(sent, in)
		}
	}
	r, _ := function.run(t)
	got := primary.Got()
	if r.Delivered != 6 || r.Waiting != 0 || r.End != "the queue is empty" || len(got) != len(sent) {
		t.Fatalf("got %+v, and %d requests of %d", r, len(got), len(sent))
	}
	for i, want := range sent { // one at a time, so they come in order
		t.Run(want.Name, func(t *testing.T) {
			parsed, err := corpus.Parse(want.Name, got[i].Raw)
			if err != nil {
				t.Fatalf("%v in\n%q", err, got[i].Raw)
			}
			parsed.Header = withoutOurs(t, parsed.Header, want)
			checkSameRequest(t, parsed, want)
		})
	}
}

// TestDrainFunctionStaysWarm holds that ten runs that have something to do go through one process, one connection to
// the broker and one to the primary.
func TestDrainFunctionStaysWarm(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, nil)
	function := deployDrain(t, vhost.URL(topology.Drainer), primary.URL, time.Minute,
		map[string]string{"FALLBACK_DRAIN_CONCURRENCY": "1"})
	pid := function.PID()
	var first []string
	for i := range 10 {
		for n := range 3 {
			checkAccepted(t, send(t, "POST", server.URL+"/fallback/orders", fmt.Sprint(3*i+n)))
		}
		if r, _ := function.run(t); r.Delivered != 3 || r.LastError != "" {
			t.Errorf("run %d: got %+v", i, r)
		}
		if i == 0 {
			first = waitConnections(t, vhost, topology.Drainer, 1)
		}
	}
	if last := waitConnections(t, vhost, topology.Drainer, 1); last[0] != first[0] {
		t.Errorf("connection %s, it began with %s", last[0], first[0])
	}
	if function.PID() != pid || function.Starts() != 1 {
		t.Errorf("%d processes were started", function.Starts())
	}
	if n := primary.Connections(); n != 1 {
		t.Errorf("%d connections to the primary, want 1", n)
	}
	checkOnce(t, primary, 30, "/orders")
}

// TestDrainFunctionPrimaryDown holds that nothing is taken while the primary is down, and that the run ends in time.
func TestDrainFunctionPrimaryDown(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, nil)
	primary.Down()
	function := deployDrain(t, vhost.URL(topology.Drainer), primary.URL, drain.Grace+4*time.Second,
		map[string]string{"FALLBACK_TARGET_TIMEOUT": "1s"})
	enqueue(t, server, 3, "/orders")
	for range 2 {
		r, took := function.run(t)
		if r.Delivered+r.Returned+r.Parked+r.Retried != 0 || r.Waiting != 3 || r.End != "its time is over" ||
			!strings.HasPrefix(r.LastError, "the primary is down") {
			t.Errorf("got %+v", r)
		}
		if took.Took < 2*time.Second || took.Over(3*time.Second+harness.Slack) {
			t.Errorf("it asked again for %s, want 3s", took)
		}
	}
	if first := takeOne(t, vhost, topology.DefaultQueue); first.Redelivered || delivered(first) {
		t.Errorf("the first message was taken: %v", first.Headers)
	}
	primary.Up(t)
	if r, _ := function.run(t); r.Delivered != 2 || r.Waiting != 0 {
		t.Errorf("when it is back: got %+v", r)
	}
}

// TestDrainFunctionPrimaryHangs holds that a request which the primary does not answer is given back in time, though
// its own time-out is longer than the platform's limit, and that this is no attempt.
func TestDrainFunctionPrimaryHangs(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	var well atomic.Bool
	primary := harness.NewPrimary(t, func(harness.Received) harness.Answer {
		if well.Load() {
			return harness.Answer{}
		}
		return harness.Answer{After: time.Minute}
	})
	function := deployDrain(t, vhost.URL(topology.Drainer), primary.URL, drain.Grace+4*time.Second,
		map[string]string{"FALLBACK_TARGET_TIMEOUT": "30s"})
	enqueue(t, server, 1, "/orders")
	const runs = 3
	var first []string
	for i := range runs {
		r, took := function.run(t)
		if r.Returned != 1 || r.Waiting != 1 || r.Delivered+r.Retried+r.Parked+r.Held != 0 ||
			r.End != "its time is over" {
			t.Errorf("after %s: got %+v", took, r)
		}
		if got := len(primary.Got()); got != i+1 {
			t.Errorf("the primary has got it %d times, want %d", got, i+1)
		}
		if i == 0 {
			first = waitConnections(t, vhost, topology.Drainer, 1)
		}
	}
	if !strings.Contains(function.Logs(), "limits.timeout") {
		t.Error("the log does not say that the limit is short")
	}
	well.Store(true)
	if r, _ := function.run(t); r.Delivered != 1 || r.Waiting != 0 {
		t.Errorf("when it answers: got %+v", r)
	}
	for _, got := range primary.Got() {
		if attempt := got.Header.Get("Fallback-Attempt"); attempt != "1" {
			t.Errorf("it came as attempt %s", attempt)
		}
	}
	if last := waitConnections(t, vhost, topology.Drainer, 1); !slices.Contains(last, first[0]) {
		t.Error("the connection should be the first")
	}
}

// TestDrainFunctionDeadlineNear holds that a run without time takes nothing, and says so at once.
func TestDrainFunctionDeadlineNear(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, nil)
	enqueue(t, server, 1, "/orders")
	function := deployDrain(t, vhost.URL(topology.Drainer), primary.URL, drain.Grace-time.Second, nil)
	if r, took := function.run(t); r.Delivered != 0 || r.End != "no time is left for a run" ||
		took.Over(harness.Slack) {
		t.Errorf("after %s: got %+v", took, r)
	}
	if first := takeOne(t, vhost, topology.DefaultQueue); first.Redelivered || len(primary.Got()) != 0 {
		t.Errorf("it was taken: %v", first.Headers)
	}
}

// TestDrainFunctionThaws freezes a warm function until the broker has given its connection up, and expects the next
// run to go on as if nothing had been; then for a moment only, and expects the old connection.
func TestDrainFunctionThaws(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, nil)
	function := deployDrain(t, vhost.URL(topology.Drainer)+"?heartbeat=2", primary.URL, time.Minute, nil)
	run := func() {
		t.Helper()
		checkAccepted(t, send(t, "POST", server.URL+"/fallback/orders", "x"))
		if r, took := function.run(t); r.Delivered != 1 || r.LastError != "" || took.Over(5*time.Second+harness.Slack) {
			t.Errorf("after %s: got %+v", took, r)
		}
	}
	run()
	before := waitConnections(t, vhost, topology.Drainer, 1)
	if err := function.Pause(); err != nil {
		t.Fatal(err)
	}
	waitConnections(t, vhost, topology.Drainer, 0)
	run() // it is thawed
	after := waitConnections(t, vhost, topology.Drainer, 1)
	if before[0] == after[0] {
		t.Error("the connection should be a new one")
	}
	if err := function.Pause(); err != nil {
		t.Fatal(err)
	}
	run()
	if again := waitConnections(t, vhost, topology.Drainer, 1); again[0] != after[0] {
		t.Error("the connection should be the old one")
	}
	if function.Starts() != 1 {
		t.Errorf("%d processes were started", function.Starts())
	}
}

// TestDrainFunctionDeadConnection holds that a run goes on as if nothing had been when its connection is dead, and
// nobody has said so: on their way from the platform, idle connections are forgotten.
func TestDrainFunctionDeadConnection(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	var forgotten atomic.Int64 // of the connections so far, these
	var made atomic.Int64
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			number := made.Add(1)
			up, err := net.Dial("tcp", broker.AMQP)
			if err != nil {
				client.Close()
				continue
			}
			carry := func(to, from net.Conn) {
				buffer := make([]byte, 64<<10)
				for {
					n, err := from.Read(buffer)
					if err != nil {
						to.Close()
						return
					}
					if number > forgotten.Load() {
						_, _ = to.Write(buffer[:n])
					}
				}
			}
			go carry(up, client)
			go carry(client, up)
		}
	}()
	function := deployDrain(t, strings.Replace(vhost.URL(topology.Drainer), broker.AMQP, ln.Addr().String(), 1),
		primary.URL, time.Minute, nil)
	for i := range 2 {
		forgotten.Store(made.Load())
		checkAccepted(t, send(t, "POST", server.URL+"/fallback/orders", "x"))
		if r, took := function.run(t); r.Delivered != 1 || r.LastError != "" || took.Over(8*time.Second+harness.Slack) {
			t.Errorf("run %d, after %s: got %+v", i, took, r)
		}
	}
	if n := made.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// TestDrainFunctionBrokerFreezes holds that the run ends in time when the broker says nothing any more in the middle
// of it.
func TestDrainFunctionBrokerFreezes(t *testing.T) {
	t.Parallel()
	own := ownBroker(t)
	vhost := own.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, func(harness.Received) harness.Answer { return harness.Answer{After: 50 * time.Millisecond} })
	function := deployDrain(t, vhost.URL(topology.Drainer), primary.URL, drain.Grace+12*time.Second,
		map[string]string{"FALLBACK_TARGET_TIMEOUT": "1s", "FALLBACK_DRAIN_CONCURRENCY": "1"})
	const n = 300 // for longer than the run
	enqueue(t, server, n, "/orders")
	frozen := make(chan error)
	var early atomic.Bool
	go func() {
		for end := time.Now().Add(15 * time.Second); len(primary.Got()) < 5 && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		err := own.Pause()
		early.Store(true)
		frozen <- err
	}()
	r, took := function.run(t)
	if !early.Load() {
		t.Error("the run had ended when the broker was frozen")
	}
	if err := <-frozen; err != nil {
		t.Fatal(err)
	}
	own.Docker(t, "unpause")
	t.Logf("after %s: %+v", took, r)
	if r.Delivered == 0 || r.Delivered >= n || r.Retried+r.Parked != 0 {
		t.Errorf("got %+v", r)
	}
	harness.Eventually(t, "the rest", func() bool { r, _ = function.run(t); return r.Waiting == 0 })
	keys := map[string]bool{}
	for _, got := range primary.Got() {
		keys[string(got.Body)] = true
	}
	if len(keys) != n {
		t.Errorf("the primary has got %d requests, want %d", len(keys), n)
	}
}

// TestDrainFunctionFailures holds that what is wrong on our side is said in an ordinary answer, and in the log, before
// the platform's limit.
func TestDrainFunctionFailures(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections into its backlog and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	const settings = "settings are missing or wrong"
	for _, row := range []struct{ name, amqp, primary, end, trouble string }{
		{"refused", "amqp://user:sesame@127.0.0.1:1/", "http://127.0.0.1:1", "its time is over",
			"cannot look at the queue: the broker cannot be reached"},
		{"silent", "amqp://user:sesame@" + silent.Addr().String() + "/", "http://127.0.0.1:1", "its time is over", ""},
		{"no primary", "amqp://user:sesame@127.0.0.1:1/", "", settings, "FALLBACK_TARGET_URL: not set"},
		{"no broker", "", "http://127.0.0.1:1", settings, "AMQP_SERVER_URL: not set"},
		{"not a URL", "amqp://user:sesa me@/", "http://127.0.0.1:1", settings, "AMQP_SERVER_URL: not an AMQP URL"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			function := deployDrain(t, row.amqp, row.primary, drain.Grace+4*time.Second, nil)
			for range 2 {
				r, _ := function.run(t)
				if r.Waiting != -1 || r.End != row.end || !strings.Contains(r.LastError, row.trouble) {
					t.Errorf("got %+v, want %s, and %s", r, row.end, row.trouble)
				}
				if said := r.LastError + function.Logs(); strings.Contains(said, "sesa") ||
					!strings.Contains(said, row.trouble) {
					t.Errorf("it said:\n%s", said)
				}
			}
			if faults := function.Faults(); len(faults) > 0 {
				t.Errorf("the platform saw faults: %v", faults)
			}
		})
	}
}

// TestDrainFunctionHasNoRoute holds that a request of the web starts no drain: the platform has no route for it, and
// should it have one, the function refuses.
func TestDrainFunctionHasNoRoute(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, nil)
	enqueue(t, server, 1, "/orders")
	function := deployDrain(t, vhost.URL(topology.Drainer), primary.URL, time.Minute, nil)
	for _, event := range []string{`{"http":{"method":"POST","path":"","headers":{}}}`,
		`{"http":{"method":"GET","path":"/readyz"}}`, `{"http":5}`, `[]`} {
		result, err := function.Invoke(context.Background(), json.RawMessage(event))
		if err != nil {
			t.Fatal(err)
		}
		var answer struct{ StatusCode int }
		if err := json.Unmarshal(result, &answer); err != nil || answer.StatusCode != http.StatusNotFound {
			t.Errorf("%s: got %s (%v), want 404", event, result, err)
		}
	}
	if n := vhost.Count(t, topology.DefaultQueue); n != 1 || len(primary.Got()) != 0 {
		t.Errorf("%d on the queue, the primary has got %d", n, len(primary.Got()))
	}
	if r, err := function.Invoke(context.Background(), json.RawMessage(`{"from":"a trigger"}`)); err != nil ||
		!strings.Contains(string(r), `"delivered":1,`) {
		t.Errorf("got %s (%v), want one delivered", r, err)
	}
}
