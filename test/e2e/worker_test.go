//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/drain"
	"fallback/functions/topology"
	"fallback/test/harness"
)

// TestWorker runs `fallback drain` as it is shipped.
func TestWorker(t *testing.T) {
	t.Parallel()
	fallback := build(t)
	for _, row := range []struct {
		name string
		test func(*testing.T, program)
	}{
		{"by its schedule", workerBySchedule},
		{"without a target", workerIdles},
		{"with a schedule that is none", workerSchedule},
		{"without a broker", workerWithoutBroker},
		{"once", workerOnce},
		{"ended while the primary hangs", workerHangs},
		{"killed between answer and ack", workerKilled},
		{"killed by a request", workerKilledByRequest},
		{"with large bodies", func(t *testing.T, p program) { workerLargeBodies(t, p, 40, 8<<20) }},
		// RabbitMQ takes 16 MiB
		{"with the largest bodies", func(t *testing.T, p program) { workerLargeBodies(t, p, 10, 15<<20) }},
		{"behind a slow line", workerSlowLine},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.test(t, fallback)
		})
	}
}

// worker is a running `fallback drain`.
type worker struct {
	*exec.Cmd
	log   *harness.Log
	ended chan error
}

func (p program) drain(t *testing.T, env harness.Settings) *worker {
	t.Helper()
	w := &worker{Cmd: exec.Command(string(p), "drain"), log: &harness.Log{}, ended: make(chan error, 1)}
	if env["FALLBACK_DRAIN_ADDR"] == "" {
		env["FALLBACK_DRAIN_ADDR"] = "127.0.0.1:0"
	}
	for name, value := range env {
		w.Env = append(w.Env, name+"="+value)
	}
	w.Stderr = w.log
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { w.ended <- w.Wait() }()
	t.Cleanup(func() {
		_ = w.Process.Kill()
		if t.Failed() {
			t.Logf("the worker's log:\n%s", w.log)
		}
	})
	return w
}

// terminate holds that SIGTERM ends it in order and in time.
func (w *worker) terminate(t *testing.T) {
	t.Helper()
	end := harness.StartWatch()
	if err := w.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-w.ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(harness.Patience):
		t.Fatal("it did not end")
	}
	end.Hold(t, 10*time.Second, "the worker's end")
}

func workerBySchedule(t *testing.T, fallback program) {
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, func(harness.Received) harness.Answer { return harness.Answer{After: 100 * time.Millisecond} })
	w := fallback.drain(t, harness.Settings{
		"AMQP_SERVER_URL": vhost.URL(topology.Drainer), "FALLBACK_TARGET_URL": primary.URL,
		"FALLBACK_DRAIN_SCHEDULE":    "1s",
		"FALLBACK_DRAIN_CONCURRENCY": "2",
	})
	for round := range 2 {
		path := fmt.Sprint("/round/", round)
		enqueue(t, server, 5, path)
		harness.Eventually(t, "a run by the schedule", func() bool { return len(primary.Got()) == 5*(round+1) })
		checkOnce(t, primary, 5, path)
	}
	enqueue(t, server, 100, "/more")
	harness.Eventually(t, "a run to be under way", func() bool { return len(primary.Got()) > 20 })
	w.terminate(t)
	got, left := len(primary.Got())-10, 0
	defer func() {
		if t.Failed() {
			t.Logf("of 100 were delivered %d, and are left %d", got, left)
		}
	}()
	harness.Eventually(t, "what was not delivered to be left: else what was in flight was not finished", func() bool {
		left = vhost.Count(t, topology.DefaultQueue)
		return got+left == 100
	})
}

func workerIdles(t *testing.T, fallback program) {
	vhost := broker.VHost(t)
	address := harness.FreeAddress()
	w := fallback.drain(t, harness.Settings{"AMQP_SERVER_URL": vhost.URL(topology.Drainer),
		"FALLBACK_DRAIN_ADDR": address})
	defer func() { fallback.run(t, nil, "health", "--addr", address).check(t, 1, []string{"not healthy"}, nil) }()
	harness.Eventually(t, "it to say so", func() bool {
		return strings.Contains(w.log.String(),
			"FALLBACK_TARGET_URL is not set")
	})
	fallback.run(t, nil, "health", "--addr", address).check(t, 0, []string{"ready"}, nil)
	w.terminate(t)
}

// workerWithoutBroker holds that a worker which cannot reach the broker lives, and is not ready.
func workerWithoutBroker(t *testing.T, fallback program) {
	address := harness.FreeAddress()
	w := fallback.drain(t, harness.Settings{
		"AMQP_SERVER_URL": "amqp://user:geheim@" + nowhere(t) + "/", "FALLBACK_TARGET_URL": "http://" + nowhere(t),
		"FALLBACK_DRAIN_ADDR": address,
	})
	harness.Eventually(t, "it to say so", func() bool {
		return strings.Contains(fallback.run(t, nil, "health", "--addr", address).stderr, "cannot reach the queue")
	})
	if r := send(t, "GET", "http://"+address+"/livez", ""); r.status != 200 {
		t.Errorf("/livez: got %s", r)
	}
	if strings.Contains(w.log.String(), "geheim") {
		t.Error("the log shows the password")
	}
	w.terminate(t)
}

func workerSchedule(t *testing.T, fallback program) {
	env := harness.Settings{
		"AMQP_SERVER_URL": "amqp://user:geheim@" + nowhere(t) + "/", "FALLBACK_TARGET_URL": "http://" + nowhere(t),
		"FALLBACK_DRAIN_SCHEDULE": "soon",
		"FALLBACK_DRAIN_ADDR":     "127.0.0.1:0",
	}
	fallback.run(t, env, "drain").check(t, 1, []string{"FALLBACK_DRAIN_SCHEDULE", "0 3 * * *"}, []string{"geheim"})
}

func workerOnce(t *testing.T, fallback program) {
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, nil)
	env := harness.Settings{"AMQP_SERVER_URL": vhost.URL(topology.Drainer), "FALLBACK_TARGET_URL": primary.URL}
	enqueue(t, server, 10, "/orders")
	var report drain.Report
	o := fallback.run(t, env, "drain", "--once", "--json", "--requests", "4")
	if err := json.Unmarshal([]byte(o.stdout), &report); err != nil || o.code != 1 || report.Delivered != 4 ||
		report.Waiting != 6 {
		t.Errorf("a budget of four: got code %d, %v, %+v", o.code, err, report)
	}
	o = fallback.run(t, env, "drain", "--once")
	if o.code != 0 || !strings.Contains(o.stdout, "delivered 6 ") || !strings.Contains(o.stdout, "the queue is empty") {
		t.Errorf("the rest: got code %d, %q %q", o.code, o.stdout, o.stderr)
	}
	checkOnce(t, primary, 10, "/orders")
	delete(env, "FALLBACK_TARGET_URL")
	fallback.run(t, env, "drain", "--once").check(t, 1, []string{"FALLBACK_TARGET_URL"}, nil)
}

// workerHangs holds that a worker ends in time also when the primary does not answer, and that the request is not lost.
func workerHangs(t *testing.T, fallback program) {
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, func(harness.Received) harness.Answer { return harness.Answer{After: 25 * time.Second, Hang: true} })
	enqueue(t, server, 3, "/orders")
	w := fallback.drain(t, harness.Settings{"AMQP_SERVER_URL": vhost.URL(topology.Drainer),
		"FALLBACK_TARGET_URL": primary.URL})
	harness.Eventually(t, "a request to be under way", func() bool { return len(primary.Got()) > 0 })
	w.terminate(t)
	harness.Eventually(t, "all to be on the queue", func() bool { return vhost.Count(t, topology.DefaultQueue) == 3 })
}

// workerKilled holds that a worker which is killed after the primary has answered and before the broker has heard of it
// loses nothing: the request comes again, under the same key.
func workerKilled(t *testing.T, fallback program) {
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	gate := newGate(t, vhost.AMQP, 0)
	primary := harness.NewPrimary(t, func(r harness.Received) harness.Answer {
		if string(r.Body) == "5" {
			gate.shut.Store(true) // the ack will not get through
		}
		return harness.Answer{}
	})
	enqueue(t, server, 10, "/orders")
	first := fallback.drain(t, harness.Settings{
		"AMQP_SERVER_URL":            strings.Replace(vhost.URL(topology.Drainer), vhost.AMQP, gate.addr, 1),
		"FALLBACK_TARGET_URL":        primary.URL,
		"FALLBACK_DRAIN_CONCURRENCY": "1",
	})
	harness.Eventually(t, "the answer", func() bool { return len(primary.Got()) >= 6 })
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gate.close()
	d, _ := vhost.Drain(t, primary, harness.Settings{"FALLBACK_DRAIN_CONCURRENCY": "1"})
	harness.Eventually(t, "the rest to be delivered", func() bool {
		once(t, d)
		return vhost.Count(t, topology.DefaultQueue) == 0 && len(primary.Got()) >= 11
	})
	keys, again5 := map[string][]string{}, ""
	for _, r := range primary.Got() {
		keys[string(r.Body)] = append(keys[string(r.Body)], r.Header.Get("Idempotency-Key"))
		if string(r.Body) == "5" {
			again5 = r.Header.Get("Fallback-Redelivered")
		}
	}
	if len(keys) != 10 {
		t.Errorf("the primary has got %d requests, want 10", len(keys))
	}
	if again := keys["5"]; len(again) != 2 || again[0] != again[1] {
		t.Errorf("request 5 came with the keys %q, want the same twice", again)
	}
	if again5 == "" {
		t.Error("request 5 came again, and did not say so")
	}
}

// workerKilledByRequest holds that a request which ends every worker that replays it is parked, and no other: they are
// delivered, and few of them twice.
func workerKilledByRequest(t *testing.T, fallback program) {
	const n, killer, attempts = 60, "7", 2
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	var current atomic.Pointer[worker]
	primary := harness.NewPrimary(t, func(r harness.Received) harness.Answer {
		if string(r.Body) != killer {
			return harness.Answer{After: 20 * time.Millisecond}
		}
		_ = current.Load().Process.Kill()
		return harness.Answer{Hang: true}
	})
	enqueue(t, server, n, "/orders")
	env := harness.Settings{
		"AMQP_SERVER_URL": vhost.URL(topology.Drainer), "FALLBACK_TARGET_URL": primary.URL,
		"FALLBACK_DRAIN_SCHEDULE": "1s", "FALLBACK_MAX_ATTEMPTS": fmt.Sprint(attempts),
	}
	kills := 0
	start := func() *worker {
		w := fallback.drain(t, env)
		current.Store(w)
		return w
	}
	w := start()
	harness.Eventually(t, "one to be parked", func() bool {
		select {
		case <-w.ended:
			kills++
			w = start()
		default:
		}
		return vhost.Count(t, parkedQueue) > 0
	})
	if most := 10 + 4*attempts; kills > most {
		t.Errorf("%d workers were killed, want %d at most", kills, most)
	}
	reader := vhost.Reader(t, parkedQueue)
	if got := string(reader.Next(t).Body); got != killer {
		t.Errorf("request %s is parked, want %s", got, killer)
	}
	times := map[string]int{}
	harness.Eventually(t, "the others to be delivered", func() bool {
		clear(times)
		for _, r := range primary.Got() {
			times[string(r.Body)]++
		}
		return len(times) == n && vhost.Count(t, topology.DefaultQueue) == 0
	})
	w.terminate(t)
	if sends := len(primary.Got()) - times[killer]; sends > n+2*8 { // that many are in flight beside it
		t.Errorf("the %d others were sent %d times", n-1, sends)
	}
	if got := vhost.Count(t, parkedQueue); got > 1 {
		t.Errorf("%d requests are parked", got)
	}
	t.Logf("%d workers killed, the request sent %d times", kills, times[killer])
}

// gate is a way to an address that can be shut for what goes there, and slow for what comes from there.
type gate struct {
	addr string
	shut atomic.Bool
	rate int64 // bytes a second that come from there; 0 is as many as may

	mu    sync.Mutex // guards conns
	conns []net.Conn
}

func newGate(t *testing.T, target string, rate int64) *gate {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{addr: ln.Addr().String(), rate: rate}
	t.Cleanup(func() { ln.Close(); g.close() })
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			g.mu.Lock()
			g.conns = append(g.conns, client, server)
			g.mu.Unlock()
			go func() {
				_, _ = io.Copy(writeFunc(func(p []byte) (int, error) {
					if g.rate > 0 {
						time.Sleep(time.Duration(len(p)) * time.Second / time.Duration(g.rate))
					}
					return client.Write(p)
				}), server)
			}()
			go func() { _, _ = io.Copy(writeFunc(func(p []byte) (int, error) { return g.pass(server, p) }), client) }()
		}
	}()
	return g
}

type writeFunc func([]byte) (int, error)

func (f writeFunc) Write(p []byte) (int, error) { return f(p) }

func (g *gate) pass(to net.Conn, p []byte) (int, error) {
	if g.shut.Load() {
		return len(p), nil
	}
	return to.Write(p)
}

// close ends all that has come through, as the network does for a process that is gone.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.conns {
		_ = c.Close()
	}
}

// publishBodies puts n messages of size bytes on the queue; each is filled with its number.
func publishBodies(t *testing.T, vhost *harness.VHost, n, size int) {
	t.Helper()
	channel := vhost.Channel(t, topology.Admin)
	if err := channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		body := bytes.Repeat([]byte{byte(i)}, size)
		confirm, err := channel.PublishWithDeferredConfirm("", topology.DefaultQueue, true, false,
			amqp.Publishing{DeliveryMode: amqp.Persistent, Body: body})
		if err != nil {
			t.Fatalf("number %d: %v", i, err)
		}
		waitConfirm(t, confirm)
	}
}

// workerSlowLine holds that bodies which are long under way from the broker arrive, and arrive once: while they come,
// the queue is not empty, and the broker not dead. An operator's command waits for them, too.
func workerSlowLine(t *testing.T, fallback program) {
	const n, size, rate = 3, 2 << 20, 512 << 10 // four seconds each
	vhost := broker.VHost(t)
	publishBodies(t, vhost, n, size)
	primary := harness.NewPrimary(t, nil)
	gate := newGate(t, vhost.AMQP, rate)
	url := strings.Replace(vhost.URL(topology.Drainer), vhost.AMQP, gate.addr, 1)
	var seen []json.RawMessage
	o := fallback.run(t, harness.Settings{"AMQP_SERVER_URL": url}, "peek", "--json")
	if err := json.Unmarshal([]byte(o.stdout), &seen); err != nil || len(seen) != n {
		t.Errorf("peek shows %d: %v %s", len(seen), err, o.stderr)
	}
	w := fallback.drain(t, harness.Settings{"AMQP_SERVER_URL": url, "FALLBACK_TARGET_URL": primary.URL,
		"FALLBACK_DRAIN_SCHEDULE": "1s"})
	begin := time.Now()
	harness.Eventually(t, "all of them to arrive", func() bool { return len(primary.Got()) >= n })
	t.Logf("%d bodies of %d MiB in %s; the line takes %d s for them", n, size>>20,
		time.Since(begin).Round(time.Millisecond), n*size/rate)
	if got := len(primary.Got()); got != n {
		t.Errorf("%d came, want %d", got, n)
	}
	if log := w.log.String(); strings.Contains(log, `"WARN"`) {
		t.Error("the worker warns")
	}
}

// workerLargeBodies holds that the worker fits into its container, however large the bodies and however many may be in
// flight.
func workerLargeBodies(t *testing.T, fallback program, n, size int) {
	container := newBundle(t).config().Services["drain"]
	vhost := ownBroker(t).VHost(t) // what waits here is nearly all that a broker may have in memory
	publishBodies(t, vhost, n, size)
	var mu sync.Mutex // guards the next
	got := map[byte]int{}
	primary := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		first := make([]byte, 1)
		if n, _ := r.Body.Read(first); n == 0 {
			return // the probe
		}
		if rest, err := io.Copy(io.Discard, r.Body); err != nil || rest != int64(size-1) {
			return
		}
		time.Sleep(100 * time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		got[first[0]]++
	}))
	t.Cleanup(primary.Close)
	w := fallback.drain(t, harness.Settings{
		"AMQP_SERVER_URL": vhost.URL(topology.Drainer), "FALLBACK_TARGET_URL": primary.URL,
		"FALLBACK_DRAIN_SCHEDULE":    "1s",
		"FALLBACK_DRAIN_CONCURRENCY": "32", "GOMEMLIMIT": *container.Environment["GOMEMLIMIT"],
	})
	begin := time.Now()
	harness.Eventually(t, "all of them to arrive", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) == n
	})
	took := time.Since(begin)
	_, peak, err := harness.Memory(w.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	peak >>= 20
	if most := container.MemLimit >> 20; peak > most-8 {
		t.Errorf("the worker's peak is %d MiB, its container has %d", peak, most)
	}
	mu.Lock()
	defer mu.Unlock()
	for i, times := range got {
		if times != 1 {
			t.Errorf("number %d came %d times", i, times)
		}
	}
	t.Logf("%d bodies of %d MiB in %s, the worker's peak is %d MiB", n, size>>20, took.Round(time.Millisecond), peak)
}
