package fault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/drain"
	"fallback/functions/topology"
	"fallback/test/harness"
)

// outlet is the far half of a rig: workers, each a process of its own, a proxy of theirs before the broker, and the
// primary that they replay to. What the primary takes is in the ledger from before its answer.
type outlet struct {
	ledger  *ledger
	queues  topology.Topology
	proxy   *proxy
	workers []*process
	primary *harness.Primary
	up      func()        // has the primary listen again
	quiet   time.Duration // so long nothing comes any more, when something is missing, before it is given up
	end     func()        // ends what replays instead of workers; nil for nothing

	answer atomic.Pointer[func(harness.Received) harness.Answer] // instead of a 200
	given  atomic.Int64                                          // answers of some that were not the usual one
	tried  atomic.Int64
	again  atomic.Int64
	early  atomic.Int64 // requests that came sooner than their last answer had asked
	odd    int          // messages that were published and cannot be read
	poison uint64       // the last request that has ended workers
	// ids of messages on the queue that the broker cannot hand over
	unspeakable map[string]bool
	// of workers by a fault that counts them: before an ack could get through, or while they had poison
	kills int

	mu   sync.Mutex // guards what follows
	rand *rand.Rand
	due  map[string]time.Time // when a message may come again, of those that were asked to wait
}

const (
	// senderRest keeps the senders at about what the workers replay, so that there is a backlog, and an end to it.
	senderRest = 35 * time.Millisecond
	// primaryTime is how long the primary takes for an answer: something is always in flight.
	primaryTime = 15 * time.Millisecond
	// retryTime is how long a retry queue holds a request here.
	retryTime = 300 * time.Millisecond
)

// newOutlet makes one without workers.
func (r *rig) newOutlet(t testing.TB, p plan) {
	t.Helper()
	o := &outlet{ledger: r.ledger, quiet: 30 * time.Second, rand: rand.New(rand.NewPCG(p.seed, ^uint64(0))),
		due: map[string]time.Time{}, unspeakable: map[string]bool{}}
	var err error
	if o.queues, err = topology.Of(topology.DefaultQueue); err != nil {
		t.Fatal(err)
	}
	for _, retry := range o.queues.Retries {
		if err := r.setPolicy(retry.Name, "message-ttl", retryTime.Milliseconds()); err != nil {
			t.Fatal(err)
		}
	}
	if o.proxy, err = startProxy(r.vhost.AMQP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.proxy.close)
	o.primary = harness.NewPrimary(t, o.receive)
	o.up = func() { o.primary.Up(t) }
	r.outlet, r.load.rest = o, senderRest
}

// startDrain starts worker processes.
func (r *rig) startDrain(t testing.TB, p plan) {
	t.Helper()
	r.newOutlet(t, p)
	for range p.workers {
		if err := r.addWorker(t, p.drain); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *rig) addWorker(t testing.TB, settings map[string]string) error {
	t.Helper()
	to := strings.Replace(r.outlet.primary.URL, "127.0.0.1", hosts[len(r.outlet.workers)], 1)
	w := &process{command: "drain", addr: harness.FreeAddress(), log: &harness.Log{}, env: map[string]string{
		"AMQP_SERVER_URL":         r.drainURL(),
		"FALLBACK_TARGET_URL":     to,
		"FALLBACK_DRAIN_SCHEDULE": "1s",
		"LOG_FORMAT":              "json",
	}}
	for name, value := range settings {
		w.env[name] = value
	}
	r.outlet.workers = append(r.outlet.workers, w)
	t.Cleanup(w.kill)
	return w.start()
}

// hosts are what the workers call the primary, each by another name: so it can tell whose a request is.
var hosts = [...]string{"127.0.0.1", "localhost"}

// drainURL is the broker's, through the outlet's proxy, as the drainer's user.
func (r *rig) drainURL() string {
	u, _ := url.Parse(r.vhost.URL(topology.Drainer))
	u.Host = r.outlet.proxy.addr()
	return u.String()
}

// receive enters what comes to the primary, and gives the answer.
func (o *outlet) receive(r harness.Received) harness.Answer {
	answer := harness.Answer{After: primaryTime}
	if other := o.answer.Load(); other != nil {
		answer = (*other)(r)
	}
	id, err := strconv.ParseUint(r.Header.Get(ledgerID), 10, 64)
	message := r.Header.Get("Fallback-Id")
	if key := r.Header.Get("Idempotency-Key"); key != message {
		message += " with the key " + key // which is nobody's
	}
	if n, _ := strconv.Atoi(r.Header.Get("Fallback-Attempt")); n > 1 {
		o.again.Add(1)
	}
	o.keepTime(message, answer)
	enter := o.ledger.delivered
	if answer.Status >= 300 || answer.Header["Fallback-Id"] != "" { // by which a door tells
		o.tried.Add(1)
		enter = o.ledger.tried
	}
	enter(id, err == nil, checksum(r.Method, r.Target, r.Header, r.Body), message)
	return answer
}

// keepTime notes whether a request comes sooner than it was asked to, and how long it is asked to wait now.
func (o *outlet) keepTime(message string, answer harness.Answer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if now.Before(o.due[message]) {
		o.early.Add(1)
	}
	if answer.RetryAfter > 0 {
		o.due[message] = now.Add(answer.After + time.Duration(answer.RetryAfter)*time.Second)
	}
}

// hold has the primary keep the requests of one worker without an answer, until release. It returns when there is one.
func (o *outlet) hold(ctx context.Context, worker int) (release func(), err error) {
	held, released := make(chan struct{}, 1), make(chan struct{})
	keep := func(r harness.Received) harness.Answer {
		if name, _, _ := net.SplitHostPort(r.Host); name != hosts[worker] {
			return harness.Answer{After: primaryTime}
		}
		select {
		case held <- struct{}{}:
		default:
		}
		return harness.Answer{Until: released}
	}
	o.answer.Store(&keep)
	release = func() {
		o.answer.Store(nil)
		close(released)
	}
	select {
	case <-held:
		return release, nil
	case <-ctx.Done():
		release()
		return nil, fmt.Errorf("waited in vain for a request of worker %d: %w", worker, ctx.Err())
	}
}

// some gives one answer to about one in so many requests, and the usual one to the others.
func (o *outlet) some(oneIn int, answer harness.Answer) {
	o.those(func(harness.Received) bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.rand.IntN(oneIn) == 0
	}, answer)
}

// those gives one answer to some requests, and the usual one to the others.
func (o *outlet) those(which func(harness.Received) bool, answer harness.Answer) {
	o.given.Store(0)
	f := func(r harness.Received) harness.Answer {
		if which(r) {
			o.given.Add(1)
			return answer
		}
		return harness.Answer{After: primaryTime}
	}
	o.answer.Store(&f)
}

// replays counts what became of requests behind the queue, beside being delivered.
type replays struct {
	connections int // of workers to the broker
	tried       int // answers of the primary that were no 2xx
	again       int // replays that were not the first attempt
	waits       int // times that a worker has said that it waits
	expired     int // by what the workers say at the end of a run; a killed one does not
	kills       int
	early       int // requests that came sooner than the primary had asked
	odd         int // messages that were published and cannot be read
}

// replays counts them so far.
func (o *outlet) replays() replays {
	if o == nil {
		return replays{}
	}
	sum := replays{
		connections: o.proxy.connections(), tried: int(o.tried.Load()), again: int(o.again.Load()), kills: o.kills,
		early: int(o.early.Load()), odd: o.odd,
	}
	for _, w := range o.workers {
		for line := range strings.Lines(w.log.String()) {
			var entry struct {
				Msg    string       `json:"msg"`
				Report drain.Report `json:"report"`
			}
			if json.Unmarshal([]byte(line), &entry) != nil {
				continue
			}
			if entry.Msg == "paused" || entry.Msg == "the primary is down" {
				sum.waits++
			}
			sum.expired += entry.Report.Expired
		}
	}
	return sum
}

func (now replays) since(before replays) replays {
	return replays{
		now.connections - before.connections, now.tried - before.tried, now.again - before.again,
		now.waits - before.waits,
		now.expired - before.expired, now.kills - before.kills,
		now.early - before.early, now.odd - before.odd,
	}
}

// awaitReplay waits for the first replay after the end of the fault, and says how long after it came.
func (r *rig) awaitReplay() (took time.Duration, came bool) {
	for {
		if at := r.ledger.nextArrival(); !at.IsZero() {
			return at.Sub(r.healed), true
		}
		if took = time.Since(r.healed); took > 30*time.Second {
			return took, false
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// drain waits until nothing is on the main and the retry queues and every accepted request has come out: at the
// primary, on the parked queue, which is read here, or by its age. When some have not and nothing comes for long
// enough, that is for the ledger to say.
func (r *rig) drain(ctx context.Context) (took time.Duration, err error) {
	begin, o := time.Now(), r.outlet
	ch, done, err := r.channel(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	var seen int
	var since time.Time // nothing has come and nothing has waited
	err = poll(ctx, "the queues to be drained", func() (bool, error) {
		for _, w := range o.workers {
			if err := w.ended(); err != nil {
				return false, err
			}
		}
		waiting, err := o.waiting(ch)
		if err != nil {
			return false, err
		}
		if waiting == 0 {
			took = time.Since(begin)
			if err := r.readQueue(ctx, o.queues.Parked, r.ledger.parked); err != nil {
				return false, err
			}
		}
		open, arrivals := r.ledger.progress()
		if waiting > 0 || arrivals != seen {
			seen, since = arrivals, time.Now()
		}
		missing := waiting > 0 || open > 0 && open > o.replays().expired
		return !missing || time.Since(since) > o.quiet, nil
	})
	return took, err
}

// waiting is how many requests are ready on the main and the retry queues.
func (o *outlet) waiting(ch *amqp.Channel) (sum int, err error) {
	for _, queue := range o.queues.Queues() {
		if queue == o.queues.Parked {
			continue
		}
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err != nil {
			return 0, fmt.Errorf("queue %s: %w", queue, err)
		}
		sum += q.Messages
	}
	return sum, nil
}

// endDrain ends the workers in order and enters what they have left on the queues.
func (r *rig) endDrain(ctx context.Context) error {
	o := r.outlet
	if o == nil {
		return nil
	}
	var errs []error
	const perWorker = 2 // connections: one to take, one to move
	if n := len(o.proxy.live()); n > perWorker*max(len(o.workers), 1) {
		errs = append(errs, fmt.Errorf("%d connections to the broker, of %d workers", n, len(o.workers)))
	}
	if o.end != nil {
		o.end()
	}
	for _, w := range o.workers {
		if err := w.terminate(); err != nil {
			errs = append(errs, fmt.Errorf("a worker: %w", err))
		}
	}
	for _, queue := range o.queues.Queues() {
		enter := r.ledger.leftOver
		if queue == o.queues.Parked {
			enter = r.ledger.parked
		}
		if err := r.readQueue(ctx, queue, enter); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
