//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// comeBack is how long the first 202 may take after the broker lets its users in again, or takes messages again.
const comeBack = 5 * time.Second

// The three below take a broker of their own away, each in one way that it goes, and give it back.

func TestBrokerKilled(t *testing.T) {
	t.Parallel()
	own := ownBroker(t)
	t.Run("absent at start", func(t *testing.T) { absentAtStart(t, own) })
	t.Run("killed under load", func(t *testing.T) { killedUnderLoad(t, own) })
}

func TestBrokerFrozen(t *testing.T) {
	t.Parallel()
	own := ownBroker(t)
	t.Run("under load", func(t *testing.T) { frozen(t, own) })
	t.Run("beside large bodies", func(t *testing.T) { frozenBesideLargeBodies(t, own) })
	t.Run("while the server stops", func(t *testing.T) { stopWhileFrozen(t, own) })
}

func TestBrokerAlarm(t *testing.T) {
	t.Parallel()
	own := ownBroker(t)
	t.Run("raised and cleared", func(t *testing.T) { memoryAlarm(t, own) })
	t.Run("that the connection does not outlive", func(t *testing.T) { alarmOutlivesConnection(t, own) })
	t.Run("while the server stops", func(t *testing.T) { stopDuringAlarm(t, own) })
}

// spare are brokers that a test had to itself and has given back as good as new: to start one takes longer than most
// tests.
var spare = make(chan *harness.Broker, 16)

// ownBroker is one that the test has to itself.
func ownBroker(t *testing.T) *harness.Broker {
	t.Helper()
	var own *harness.Broker
	var err error
	select {
	case own = <-spare:
		err = own.WaitReady() // it may have been started again a moment ago
	default:
		own, err = harness.StartBroker(harness.BrokerOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			spare <- own
		} else if err := own.Close(); err != nil {
			t.Error(err)
		}
	})
	return own
}

// closeSpare is for after the last test.
func closeSpare() (err error) {
	close(spare)
	for own := range spare {
		err = errors.Join(err, own.Close())
	}
	return err
}

// waitLogin waits until the broker lets the publisher in.
func waitLogin(t *testing.T, vhost *harness.VHost) {
	t.Helper()
	harness.Eventually(t, "the broker to be back", func() bool {
		conn, err := amqp.DialConfig(vhost.URL(topology.Publisher), amqp.Config{
			Dial: amqp.DefaultDial(time.Second),
		})
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	})
}

// within holds that the answer is there by the deadline.
func within(t *testing.T, timeout time.Duration, ask func() reply) reply {
	t.Helper()
	w := harness.StartWatch()
	r := ask()
	w.Hold(t, timeout, "the answer "+r.String())
	return r
}

// checkNoneLost reads the queue empty and holds that every request with a 202 was on it, as it was sent. A request may
// be there twice, when its first confirm was lost, and one that got no 202 may be there too.
func checkNoneLost(t *testing.T, vhost *harness.VHost, accepted map[string]string) {
	t.Helper()
	queue := collect(t, vhost, topology.DefaultQueue)
	defer queue.conn.Close() // what comes later is for others
	harness.Eventually(t, "the queue to be empty", func() bool {
		return vhost.Count(t, topology.DefaultQueue) == 0
	})
	checkCollected(t, queue, accepted)
}

// checkCollected waits until nothing that was accepted is missing.
func checkCollected(t *testing.T, queue *collector, accepted map[string]string) {
	t.Helper()
	var lost []string
	for end := time.Now().Add(harness.Patience); ; time.Sleep(20 * time.Millisecond) {
		lost = nil
		for id := range accepted {
			if len(queue.of(id)) == 0 {
				lost = append(lost, id)
			}
		}
		if len(lost) == 0 || time.Now().After(end) {
			break
		}
	}
	if len(lost) > 0 {
		t.Fatalf("%d of %d requests with a 202 are not on the queue: %.200q", len(lost), len(accepted), lost)
	}
	for id, body := range accepted {
		if got := queue.of(id)[0].Body; string(got) != body {
			t.Errorf("%s: got %.100q, want %.100q", id, got, body)
		}
	}
}

// linesOf are the log's lines with a message, debug lines left out.
func linesOf(log *harness.Log, message string) (lines []string) {
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, message) && !strings.Contains(line, "level=DEBUG") {
			lines = append(lines, line)
		}
	}
	return lines
}

func checkLines(t *testing.T, server *harness.Server, message string, want int) {
	t.Helper()
	if got := linesOf(server.Log, message); len(got) != want {
		t.Errorf("%d lines of the log hold %q, want %d:\n%s", len(got), message, want, strings.Join(got, ""))
	}
}

// checkQuiet holds that an outage is a few lines: when it starts, when it changes, when it ends.
func checkQuiet(t *testing.T, server *harness.Server) {
	t.Helper()
	if got := linesOf(server.Log, ""); len(got) > 10 {
		t.Errorf("an outage took %d lines of the log", len(got))
	}
}

func absentAtStart(t *testing.T, own *harness.Broker) {
	vhost := own.VHost(t)
	own.Docker(t, "kill")
	server := vhost.Serve(t, nil)
	for range 3 {
		if r := send(t, "GET", server.URL+"/livez", ""); r.status != http.StatusOK {
			t.Errorf("/livez: got %s", r)
		}
		r := within(t, 5*time.Second, func() reply { return send(t, "GET", server.URL+"/readyz", "") })
		checkProblem(t, r, http.StatusServiceUnavailable, "broker-unavailable")
		r = within(t, 5*time.Second, func() reply { return send(t, "POST", server.URL+"/fallback", "x") })
		checkProblem(t, r, http.StatusServiceUnavailable, "broker-unavailable")
	}
	away := startLoad(server, 4, 50*time.Millisecond)
	own.Docker(t, "start")
	waitLogin(t, vhost)
	harness.Within(t, comeBack, "a 202", func() bool { n, _ := away.answered(); return n > 0 })
	away.end()
	checkTimes(t, away, 5*time.Second)
	server.WaitReady(t)
	checkNoneLost(t, vhost, away.accepted)
	checkLines(t, server, "connected to the broker", 1)
	checkLines(t, server, "connection to the broker lost", 0)
	checkQuiet(t, server)
}

// checkTimes holds that nobody waited longer than the deadline.
func checkTimes(t *testing.T, l *load, timeout time.Duration) {
	t.Helper()
	for _, e := range l.times {
		if e.Over(timeout + harness.Slack) {
			t.Errorf("an answer took %s, the deadline is %s", e, timeout)
		}
	}
	if len(l.failed) > 0 {
		t.Errorf("%d requests got no answer: %.500q", len(l.failed), l.failed)
	}
	for _, r := range l.refused {
		if r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
			t.Errorf("got %s with Retry-After %q, want a 503 with one", r, r.header.Get("Retry-After"))
		}
		checkTellsNothing(t, r)
	}
}

// killedUnderLoad kills the broker while requests are in flight: those that it had not confirmed get a 503, and none
// that got a 202 is lost.
func killedUnderLoad(t *testing.T, own *harness.Broker) {
	vhost := own.VHost(t)
	server := vhost.Serve(t, nil)
	server.WaitReady(t)
	l := startLoad(server, 8, 10*time.Millisecond)
	harness.Eventually(t, "a load", func() bool { n, _ := l.answered(); return n > 300 })
	own.Docker(t, "kill")
	harness.Eventually(t, "a 503", func() bool { _, n := l.answered(); return n > 0 })
	checkProblem(t, send(t, "GET", server.URL+"/readyz", ""), http.StatusServiceUnavailable, "broker-unavailable")
	before, _ := l.answered()
	own.Docker(t, "start")
	waitLogin(t, vhost)
	harness.Within(t, comeBack, "a 202", func() bool { n, _ := l.answered(); return n > before })
	server.WaitReady(t)
	l.end()
	checkTimes(t, l, 5*time.Second)
	checkNoneLost(t, vhost, l.accepted)
	checkLines(t, server, "connection to the broker lost", 1)
	checkLines(t, server, "connected to the broker", 2) // at the start and now
	checkQuiet(t, server)
}

// frozen holds the same for a broker that takes connections and says nothing.
func frozen(t *testing.T, own *harness.Broker) {
	const timeout = 2 * time.Second
	vhost := own.VHost(t)
	server := vhost.Serve(t, harness.Settings{"FALLBACK_TIMEOUT": timeout.String()})
	server.WaitReady(t)
	l := startLoad(server, 4, 20*time.Millisecond)
	harness.Eventually(t, "a load", func() bool { n, _ := l.answered(); return n > 50 })
	freeze(t, own)
	harness.Eventually(t, "answers of 503", func() bool { _, n := l.answered(); return n >= 12 })
	checkProblem(t, within(t, timeout, func() reply { return send(t, "GET", server.URL+"/readyz", "") }),
		http.StatusServiceUnavailable, "broker-unavailable")
	before, _ := l.answered()
	own.Docker(t, "unpause")
	waitLogin(t, vhost)
	harness.Within(t, comeBack, "a 202", func() bool { n, _ := l.answered(); return n > before })
	l.end()
	checkTimes(t, l, timeout)
	checkNoneLost(t, vhost, l.accepted)
	checkQuiet(t, server)
}

// frozenBesideLargeBodies holds that the deadline is kept also when more has been written to the broker than fits on
// the way to it.
func frozenBesideLargeBodies(t *testing.T, own *harness.Broker) {
	const timeout, senders = 10 * time.Second, 48 // of which the bodies may take nine seconds: they are of this process
	vhost := own.VHost(t)
	server := vhost.Serve(t, harness.Settings{"FALLBACK_TIMEOUT": timeout.String()})
	server.WaitReady(t)
	freeze(t, own)
	l := &load{accepted: map[string]string{}}
	body := strings.Repeat("x", 1<<20)
	for range senders {
		l.work.Go(func() {
			w := harness.StartWatch()
			r, err := exchange("POST", server.URL+"/fallback", body)
			l.note(body, r, err, w.Elapsed())
		})
	}
	l.work.Wait()
	checkTimes(t, l, timeout)
	if len(l.accepted) > 0 {
		t.Errorf("%d requests got a 202", len(l.accepted))
	}
}

// freeze stops every process of the broker, until the test ends at the latest.
func freeze(t *testing.T, own *harness.Broker) {
	t.Helper()
	if err := own.Pause(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := own.Exec("true"); err != nil { // it is frozen still
			own.Docker(t, "unpause")
		}
	})
}

// stopWhileFrozen holds that a broker which answers nothing does not keep the server from its end.
func stopWhileFrozen(t *testing.T, own *harness.Broker) {
	vhost := own.VHost(t)
	// before the server cuts off, 7 s after it is told to stop
	server := vhost.Serve(t, harness.Settings{"FALLBACK_TIMEOUT": "6s"})
	server.WaitReady(t)
	freeze(t, own)
	var unfinished []*slowRequest
	for range 3 {
		unfinished = append(unfinished, inHand(t, server.Addr, "Content-Length: 4"))
	}
	stop := harness.StartWatch()
	stopped := make(chan error, 1)
	go func() { stopped <- server.Stop() }()
	waitRefused(t, server)
	for _, s := range unfinished {
		if _, err := s.Write([]byte("body")); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range unfinished {
		r, err := s.answer()
		if err != nil {
			t.Fatal(err)
		}
		checkProblem(t, r, http.StatusServiceUnavailable, "not-confirmed")
	}
	if err := <-stopped; err != nil {
		t.Errorf("the server ended with %v", err)
	}
	stop.Hold(t, 10*time.Second, "the server's end")
}

// watermark sets how much memory the broker may take: 1 byte raises the alarm, in which it stops reading from those who
// publish. When the test ends it is again what rabbitmq.conf says.
func watermark(t *testing.T, own *harness.Broker, bytes string) {
	t.Helper()
	if err := own.Eval("vm_memory_monitor:set_vm_memory_high_watermark({absolute, " + bytes + "})"); err != nil {
		t.Fatal(err)
	}
}

const alarming, normal = `1`, `"512MB"`

func memoryAlarm(t *testing.T, own *harness.Broker) {
	vhost := own.VHost(t)
	server := vhost.Serve(t, nil)
	server.WaitReady(t)
	accepted := map[string]string{}
	post := func(body string) reply {
		r := within(t, 5*time.Second, func() reply { return send(t, "POST", server.URL+"/fallback", body) })
		if r.status == http.StatusAccepted {
			accepted[r.id()] = body
		}
		return r
	}
	for i := range 10 {
		checkAccepted(t, post(fmt.Sprint("before ", i)))
	}
	t.Cleanup(func() { watermark(t, own, normal) })
	watermark(t, own, alarming)
	waitBlocked(t, server, post)
	known := harness.StartWatch()
	for i := range 10 {
		checkProblem(t, post(fmt.Sprint("during ", i)), http.StatusServiceUnavailable, "broker-blocked")
	}
	// each would take as long, did it wait for the broker
	known.Hold(t, 5*time.Second, "ten answers with an alarm that is known")
	checkProblem(t, send(t, "GET", server.URL+"/readyz", ""), http.StatusServiceUnavailable, "broker-blocked")
	if r := send(t, "GET", server.URL+"/livez", ""); r.status != http.StatusOK {
		t.Errorf("/livez: got %s", r)
	}
	watermark(t, own, normal)
	harness.Within(t, comeBack, "a 202", func() bool { return post("after").status == http.StatusAccepted })
	server.WaitReady(t)
	checkNoneLost(t, vhost, accepted)
	checkLines(t, server, "the broker takes no messages", 1)
	checkLines(t, server, "the broker takes messages again", 1)
	checkQuiet(t, server)
}

// waitBlocked posts until the answer is that the broker takes no messages. The broker tells a connection when it
// publishes, so the first ones may be accepted, or time out.
func waitBlocked(t *testing.T, server *harness.Server, post func(string) reply) {
	t.Helper()
	harness.Eventually(t, "to be told of the alarm", func() bool {
		return strings.Contains(string(post("first").body), "broker-blocked")
	})
}

// alarmOutlivesConnection holds that the log tells of an alarm's end, and of the next one, also when the connection
// that heard of the first has gone meanwhile.
func alarmOutlivesConnection(t *testing.T, own *harness.Broker) {
	vhost := own.VHost(t)
	server := vhost.Serve(t, nil)
	server.WaitReady(t)
	post := func(body string) reply { return send(t, "POST", server.URL+"/fallback", body) }
	t.Cleanup(func() { watermark(t, own, normal) })
	name := brokerConnection(t, vhost)
	watermark(t, own, alarming)
	waitBlocked(t, server, post)
	// The management API may need more than one word: a connection that is blocked is slow to hear it.
	harness.Eventually(t, "another connection", func() bool {
		// an error when it is gone
		_ = vhost.Call(http.MethodDelete, "/api/connections/"+url.PathEscape(name), nil, nil)
		return len(linesOf(server.Log, "connected to the broker")) == 2
	})
	watermark(t, own, normal)
	harness.Within(t, comeBack, "a 202", func() bool { return post("after").status == http.StatusAccepted })
	harness.Within(t, comeBack, "the log to tell", func() bool {
		return len(linesOf(server.Log, "the broker takes messages again")) == 1
	})
	before := len(linesOf(server.Log, "the broker takes no messages"))
	watermark(t, own, alarming)
	waitBlocked(t, server, post)
	checkLines(t, server, "the broker takes no messages", before+1)
}

// stopDuringAlarm holds that a server can end while its broker reads nothing and sends heartbeats, one a second here.
func stopDuringAlarm(t *testing.T, own *harness.Broker) {
	vhost := own.VHost(t)
	t.Cleanup(func() { watermark(t, own, normal) })
	var servers []*harness.Server
	for range 3 {
		server := vhost.Serve(t, harness.Settings{"AMQP_SERVER_URL": vhost.URL(topology.Publisher) + "?heartbeat=2"})
		server.WaitReady(t)
		servers = append(servers, server)
	}
	watermark(t, own, alarming)
	for _, server := range servers {
		waitBlocked(t, server, func(body string) reply { return send(t, "POST", server.URL+"/fallback", body) })
	}
	for _, server := range servers {
		stop := harness.StartWatch()
		if err := server.Stop(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
		stop.Hold(t, 5*time.Second, "the end of a server with nothing in hand")
	}
}

// queuePath is the main queue's path in the management API.
func queuePath(vhost *harness.VHost) string {
	return "/api/queues/" + vhost.Name + "/" + topology.DefaultQueue
}

func deleteMain(t *testing.T, vhost *harness.VHost) {
	t.Helper()
	if err := vhost.Call(http.MethodDelete, queuePath(vhost), nil, nil); err != nil {
		t.Fatal(err)
	}
}

// declareMain makes the main queue of a type, as the definitions do but for the type.
func declareMain(t *testing.T, vhost *harness.VHost, kind string) {
	t.Helper()
	queue := map[string]any{"durable": true, "auto_delete": false, "arguments": map[string]any{"x-queue-type": kind}}
	if err := vhost.Call(http.MethodPut, queuePath(vhost), queue, nil); err != nil {
		t.Fatal(err)
	}
}

// many posts at the same time and returns all answers.
func many(t *testing.T, server *harness.Server, n int) []reply {
	t.Helper()
	replies := make([]reply, n)
	var work sync.WaitGroup
	for i := range n {
		work.Go(func() {
			r, err := exchange("POST", server.URL+"/fallback", fmt.Sprint("many ", i))
			if err != nil {
				t.Error(err)
			}
			replies[i] = r
		})
	}
	work.Wait()
	return replies
}

// TestQueueDeleted holds that without a queue there is no 202, and that with it there is one again.
func TestQueueDeleted(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	server.WaitReady(t)
	checkAccepted(t, send(t, "POST", server.URL+"/fallback", "gone with the queue"))
	deleteMain(t, vhost)
	for range 5 {
		for _, r := range many(t, server, 8) {
			checkProblem(t, r, http.StatusServiceUnavailable, "queue-missing")
		}
	}
	harness.Eventually(t, "/readyz to say so", func() bool {
		return send(t, "GET", server.URL+"/readyz", "").status != http.StatusOK
	})
	checkProblem(t, send(t, "GET", server.URL+"/readyz", ""), http.StatusServiceUnavailable, "queue-missing")
	declareMain(t, vhost, "quorum")
	harness.Within(t, comeBack, "a 202", func() bool {
		return send(t, "POST", server.URL+"/fallback", "first").status == http.StatusAccepted
	})
	accepted := map[string]string{}
	for i, r := range many(t, server, 20) {
		checkAccepted(t, r)
		accepted[r.id()] = fmt.Sprint("many ", i)
	}
	server.WaitReady(t)
	checkNoneLost(t, vhost, accepted)
	checkLines(t, server, "the queue does not exist", 1)
	checkLines(t, server, "the queue is there", 1)
	checkLines(t, server, "connection to the broker lost", 0)
}

// TestQueueDeletedBesideAdmin holds that a publisher which may declare the queue does so, as what it must be: whatever
// the virtual host's default is.
func TestQueueDeletedBesideAdmin(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	if err := vhost.Call(http.MethodPut, "/api/vhosts/"+vhost.Name, map[string]any{"default_queue_type": "classic"},
		nil); err != nil {
		t.Fatal(err)
	}
	server := vhost.Serve(t, harness.Settings{"AMQP_SERVER_URL": vhost.URL(topology.Admin)})
	server.WaitReady(t)
	for range 3 {
		deleteMain(t, vhost)
		accepted := map[string]string{}
		for i, r := range many(t, server, 8) {
			checkAccepted(t, r)
			accepted[r.id()] = fmt.Sprint("many ", i)
		}
		var queue struct {
			Type    string
			Durable bool
		}
		if err := vhost.Call(http.MethodGet, queuePath(vhost), nil, &queue); err != nil {
			t.Fatal(err)
		}
		if queue.Type != "quorum" || !queue.Durable {
			t.Errorf("the queue is %+v, want a durable quorum queue", queue)
		}
		checkNoneLost(t, vhost, accepted)
	}
	if len(linesOf(server.Log, "the queue did not exist and was declared")) == 0 {
		t.Error("the log does not say that the queue was declared")
	}
}

// TestQueueDeletedUnderWay holds that requests which are under way to a queue while it is deleted are not told that it
// is full, which is what the broker's nack also means: they are on the queue that the publisher declares, or hear that
// there is none. RabbitMQ before 4.3 may end the connection over a queue that is being deleted (541): then nobody knows
// what became of those that were under way on it, and if there is no queue to send them to again, they hear that.
func TestQueueDeletedUnderWay(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ user, problem string }{
		{topology.Admin, "no problem"},
		{topology.Publisher, "queue-missing"},
	} {
		t.Run(row.user, func(t *testing.T) {
			t.Parallel()
			vhost := broker.VHost(t)
			server := vhost.Serve(t, harness.Settings{"AMQP_SERVER_URL": vhost.URL(row.user)})
			server.WaitReady(t)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var clients sync.WaitGroup
			var accepted, unconfirmed atomic.Int64
			for range 16 {
				clients.Go(func() {
					for ctx.Err() == nil && !t.Failed() {
						r, err := exchange("POST", server.URL+"/fallback", "under way")
						switch {
						case err != nil:
							t.Error(err)
						case r.status == http.StatusAccepted:
							accepted.Add(1)
						case row.user == topology.Publisher && strings.Contains(string(r.body), ":not-confirmed"):
							unconfirmed.Add(1)
						default:
							checkProblem(t, r, http.StatusServiceUnavailable, row.problem)
						}
					}
				})
			}
			for range 10 {
				before := accepted.Load()
				harness.Eventually(t, "more requests to be accepted",
					func() bool { return accepted.Load() >= before+100 || t.Failed() })
				deleteMain(t, vhost)
				if row.user != topology.Admin {
					declareMain(t, vhost, "quorum")
				}
			}
			stop()
			clients.Wait()
			checkLines(t, server, "the queue is full", 0)
			if n := unconfirmed.Load(); n > 0 && len(linesOf(server.Log, "(541)")) == 0 {
				t.Errorf("%d were told that nobody knows, want none: the broker has ended no connection", n)
			}
		})
	}
}

// TestClassicQueue holds that a queue which does not keep the promise of a 202 is noticed in every way that there is to
// notice it, while requests are taken all the same: a queue that may lose one is better than none.
func TestClassicQueue(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name       string
		user       string
		management bool
	}{
		{"by the management API", topology.Publisher, true},
		{"by AMQP alone", topology.Admin, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			vhost := broker.VHost(t)
			settings := harness.Settings{"AMQP_SERVER_URL": vhost.URL(row.user)}
			if !row.management {
				settings["RABBITMQ_MANAGEMENT_URL"] = ""
			}
			server := vhost.Serve(t, settings)
			server.WaitReady(t)
			deleteMain(t, vhost)
			declareMain(t, vhost, "classic")
			harness.Eventually(t, "/readyz to say so", func() bool {
				return send(t, "GET", server.URL+"/readyz", "").status != http.StatusOK
			})
			checkProblem(t, send(t, "GET", server.URL+"/readyz", ""), http.StatusServiceUnavailable, "queue-not-quorum")
			checkLines(t, server, "the promise of a 202 does not hold", 1)
			accepted := map[string]string{}
			for i, r := range many(t, server, 8) {
				checkAccepted(t, r)
				accepted[r.id()] = fmt.Sprint("many ", i)
			}
			checkNoneLost(t, vhost, accepted)

			again := vhost.Serve(t, settings) // one that finds it so
			harness.Eventually(t, "the log to say so", func() bool {
				return len(linesOf(again.Log, "the promise of a 202 does not hold")) == 1
			})
			deleteMain(t, vhost)
			declareMain(t, vhost, "quorum")
			server.WaitReady(t)
			again.WaitReady(t)
		})
	}
}

// TestAbortedReads holds that a message which is read and not acknowledged stays, however often: a broker's own limit
// of 20 would delete it.
func TestAbortedReads(t *testing.T) {
	t.Parallel()
	for _, queue := range []string{topology.DefaultQueue + ".parked", topology.DefaultQueue} {
		t.Run(queue, func(t *testing.T) {
			t.Parallel()
			vhost := broker.VHost(t)
			put(t, vhost, queue)
			for i := range 30 {
				if !abortedRead(t, vhost, queue) {
					t.Fatalf("the message was gone after %d reads", i)
				}
			}
			if m := vhost.Reader(t, queue).Next(t); m.MessageId != "kept" {
				t.Errorf("message %q is on the queue", m.MessageId)
			}
		})
	}
	t.Run("without our policy", func(t *testing.T) {
		t.Parallel()
		if harness.Version() == "3.10" {
			return // it has no limit of its own
		}
		vhost := broker.VHost(t)
		const queue = topology.DefaultQueue + ".parked"
		if err := vhost.Call(http.MethodDelete, "/api/policies/"+vhost.Name+"/"+queue, nil, nil); err != nil {
			t.Fatal(err)
		}
		put(t, vhost, queue)
		for range 30 {
			if !abortedRead(t, vhost, queue) {
				return
			}
		}
		t.Error("the message is still there: this test does not see what it is for")
	})
}

// put publishes one message as the drainer's user, who parks, and waits for its confirm.
func put(t *testing.T, vhost *harness.VHost, queue string) {
	t.Helper()
	ch := vhost.Channel(t, topology.Drainer)
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	confirm, err := ch.PublishWithDeferredConfirm("", queue, true, false,
		amqp.Publishing{MessageId: "kept", DeliveryMode: amqp.Persistent})
	if err != nil {
		t.Fatal(err)
	}
	waitConfirm(t, confirm)
}

// waitConfirm waits until the broker has stored a message. A broker under an alarm says nothing.
func waitConfirm(t *testing.T, confirm *amqp.DeferredConfirmation) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	if stored, err := confirm.WaitContext(ctx); err != nil || !stored {
		t.Fatalf("the message was not stored: %v", err)
	}
}

// abortedRead gets the message and closes the connection without a word about it. It says false when the queue stays
// empty.
func abortedRead(t *testing.T, vhost *harness.VHost, queue string) bool {
	t.Helper()
	conn, err := amqp.Dial(vhost.URL(topology.Drainer))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, ok, err := ch.Get(queue, false); err != nil {
			t.Fatal(err)
		} else if ok {
			return true // else the broker has not taken the last one back yet
		}
	}
	return false
}

// TestQueueFull holds that a full queue refuses, drops nothing, and takes again when there is room.
func TestQueueFull(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	server.WaitReady(t)
	policy := map[string]any{
		"pattern": "^" + topology.DefaultQueue + "$", "apply-to": "queues", "priority": 100,
		"definition": map[string]any{"max-length": 3, "overflow": "reject-publish"},
	}
	if err := vhost.Call(http.MethodPut, "/api/policies/"+vhost.Name+"/small", policy, nil); err != nil {
		t.Fatal(err)
	}
	accepted, n := map[string]string{}, 0
	post := func() reply {
		body := fmt.Sprint("full ", n)
		n++
		r := send(t, "POST", server.URL+"/fallback", body)
		if r.status == http.StatusAccepted {
			accepted[r.id()] = body
		}
		return r
	}
	harness.Eventually(t, "the queue to be full", func() bool { return post().status != http.StatusAccepted })
	for range 10 {
		checkProblem(t, post(), http.StatusServiceUnavailable, "queue-full")
	}
	if len(accepted) < 3 {
		t.Errorf("%d requests were accepted, want 3 at the least", len(accepted))
	}
	if got := vhost.Count(t, topology.DefaultQueue); got != len(accepted) {
		t.Errorf("%d messages on the queue, %d answers of 202", got, len(accepted))
	}
	queue := collect(t, vhost, topology.DefaultQueue)
	harness.Within(t, comeBack, "a 202", func() bool { return post().status == http.StatusAccepted })
	checkCollected(t, queue, accepted)
	checkLines(t, server, "connection to the broker lost", 0)
}

// relay stands between a server and the broker, and can be silent as a network is that forgets connections: nobody is
// told, and nothing arrives.
type relay struct {
	net.Listener
	accepted, closed atomic.Int64 // connections of the server: taken, and closed by it

	mu     sync.Mutex // guards silent
	silent *atomic.Bool
}

func startRelay(t *testing.T, to string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	r := &relay{Listener: ln, silent: &atomic.Bool{}}
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			silent := r.silent
			r.mu.Unlock()
			r.accepted.Add(1)
			go r.pass(near, to, silent)
		}
	}()
	return r
}

func (r *relay) pass(near net.Conn, to string, silent *atomic.Bool) {
	defer near.Close()
	far, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer far.Close()
	go func() { _, _ = io.Copy(unlessSilent{near, silent}, far) }()
	_, _ = io.Copy(unlessSilent{far, silent}, near)
	r.closed.Add(1)
}

// silence is for every connection from now on.
func (r *relay) silence() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silent.Store(true)
}

// heal lets new connections pass; those that were silenced stay so.
func (r *relay) heal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silent = &atomic.Bool{}
}

type unlessSilent struct {
	io.Writer
	silent *atomic.Bool
}

func (w unlessSilent) Write(p []byte) (int, error) {
	if w.silent.Load() {
		return len(p), nil
	}
	return w.Writer.Write(p)
}

// TestSilentConnection holds that a connection which is dead without knowing it costs the requests that went that way
// and no others, that a try to connect which nobody answers does not hold up the next one, and that the log tells the
// story in its order.
func TestSilentConnection(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		lost int // of the tries to connect
	}{
		{"one connection is forgotten", 0},
		{"nothing arrives for a while", 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			const timeout = 5 * time.Second
			vhost := broker.VHost(t)
			relay := startRelay(t, broker.AMQP)
			server := vhost.Serve(t, harness.Settings{
				"AMQP_SERVER_URL": strings.Replace(vhost.URL(topology.Publisher), broker.AMQP, relay.Addr().String(),
					1),
				"FALLBACK_TIMEOUT": timeout.String(),
			})
			server.WaitReady(t)
			accepted := map[string]string{}
			post := func(body string) reply {
				r := within(t, timeout, func() reply { return send(t, "POST", server.URL+"/fallback", body) })
				if r.status == http.StatusAccepted {
					accepted[r.id()] = body
				}
				return r
			}
			checkAccepted(t, post("before"))
			relay.silence()
			if row.lost == 0 {
				relay.heal()
			}
			checkProblem(t, post("on its way"), http.StatusServiceUnavailable, "not-confirmed")
			if row.lost == 0 {
				checkAccepted(t, post("after")) // over a new connection
			} else {
				harness.Eventually(t, "a try to connect", func() bool { return relay.accepted.Load() > 1 })
				relay.heal()
				harness.Within(t, comeBack, "a 202", func() bool { return post("after").status == http.StatusAccepted })
			}
			server.WaitReady(t)
			harness.Within(t, 15*time.Second, "the dead connections to be closed", func() bool {
				return relay.closed.Load() > int64(row.lost)
			})
			checkAccepted(t, post("later"))
			checkNoneLost(t, vhost, accepted)
			story := linesOf(server.Log, "to the broker")
			if len(story) == 0 || !strings.Contains(story[len(story)-1], "connected to the broker") {
				t.Errorf("the server is connected, and the log says:\n%s", strings.Join(story, ""))
			}
		})
	}
}
