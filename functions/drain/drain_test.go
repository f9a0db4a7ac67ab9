package drain

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/backoff"
	"fallback/functions/envelope"
	"fallback/functions/target"
)

// memory is a queue in memory, and those beside it. It stands for the broker, where time is to be the test's own.
type memory struct {
	mu      sync.Mutex
	ready   []*message
	queues  map[string][]*message
	full    map[string]bool
	credit  int // of the present consumer: as the broker counts, its own deliveries only
	taker   int // which consumer that is
	inHand  int
	most    int // of inHand
	bytes   int // of the bodies in hand
	heavy   int // the most of them
	taken   int // deliveries
	more    chan struct{}
	taking  bool
	settled int
	longest time.Duration // that one was in hand
	retry   time.Duration // after so long what was moved to 10s comes again, if it is not 0
	ids     int           // that were given
}

type message struct {
	queue    *memory
	request  *envelope.Request
	id       string // that it was given
	broken   error
	attempts int
	redriven time.Time
	headers  map[string]any
	taker    int // the consumer that it was delivered to
	takenAt  time.Time
}

func newMemory(n int) *memory {
	q := &memory{queues: map[string][]*message{}, full: map[string]bool{}, more: make(chan struct{}, 1)}
	for i := range n {
		q.ready = append(q.ready, &message{queue: q, request: &envelope.Request{ID: fmt.Sprint(i), Target: "/", ReceivedAt: time.Now()}})
	}
	return q
}

func (q *memory) Waiting(context.Context) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ready), nil
}

func (q *memory) Left(ctx context.Context, _ int) (int, error) { return q.Waiting(ctx) }

func (q *memory) Take(_ context.Context, ahead int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.credit, q.taking = ahead, true
	q.taker++
	q.signal()
	return nil
}

func (q *memory) CountsRequeues() bool { return false }

func (q *memory) Stop(context.Context) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taking = false
	return nil
}

func (q *memory) Pass(context.Context) ([]Delivery, error) { return nil, nil }

func (q *memory) Next(ctx context.Context) (Delivery, error) {
	for asked := 0; ; {
		q.mu.Lock()
		if q.taking && len(q.ready) > 0 && q.credit > 0 {
			m := q.ready[0]
			q.ready = q.ready[1:]
			q.credit--
			m.taker = q.taker
			q.inHand++
			m.takenAt = time.Now()
			q.taken++
			q.most = max(q.most, q.inHand)
			q.bytes += m.Size()
			q.heavy = max(q.heavy, q.bytes)
			q.mu.Unlock()
			return m, nil
		}
		dry := len(q.ready) == 0
		q.mu.Unlock()
		if dry {
			if asked++; asked > 2 {
				return nil, ErrDry
			}
		}
		timer := time.NewTimer(25 * time.Millisecond)
		if !dry {
			timer.Reset(time.Hour)
		}
		select {
		case <-q.more:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
		timer.Stop()
	}
}

// signal says that something has changed; the caller holds mu.
func (q *memory) signal() {
	select {
	case q.more <- struct{}{}:
	default:
	}
}

func (m *message) Request() (*envelope.Request, error) {
	request := *m.request
	return &request, m.broken
}

func (m *message) Identify() string {
	if m.id == "" {
		m.queue.mu.Lock()
		defer m.queue.mu.Unlock()
		m.queue.ids++
		m.id = fmt.Sprint("given ", m.queue.ids)
	}
	return m.id
}

func (m *message) Size() int { return len(m.request.Body) }

func (m *message) Header(name string) string {
	switch value, ok := m.headers[name]; {
	case ok:
		return fmt.Sprint(value)
	case name == HeaderAttempt:
		return fmt.Sprint(m.attempts)
	case name == HeaderRedriven && !m.redriven.IsZero():
		return stamp(m.redriven)
	}
	return ""
}

func (m *message) Forget()    {}
func (m *message) Lost() bool { return false }

func (m *message) Done() error {
	m.queue.mu.Lock()
	defer m.queue.mu.Unlock()
	m.queue.settled++
	m.leave()
	return nil
}

func (m *message) Requeue() error {
	m.queue.mu.Lock()
	defer m.queue.mu.Unlock()
	m.id = "" // the broker knows nothing of it
	m.queue.ready = append([]*message{m}, m.queue.ready...)
	m.leave()
	return nil
}

// leave is for a message that is not in hand any more; the caller holds mu.
func (m *message) leave() {
	m.queue.inHand--
	m.queue.longest = max(m.queue.longest, time.Since(m.takenAt))
	m.queue.bytes -= m.Size()
	if m.taker == m.queue.taker {
		m.queue.credit++
	}
	m.queue.signal()
}

func (m *message) Move(_ context.Context, queue string, headers map[string]any) error {
	m.queue.mu.Lock()
	if m.queue.full[queue] {
		m.queue.mu.Unlock()
		return errors.New("the queue is full")
	}
	moved := &message{queue: m.queue, request: m.request, id: m.id, headers: maps.Clone(headers)}
	maps.DeleteFunc(moved.headers, func(_ string, v any) bool { return v == nil })
	if m.queue.retry > 0 && queue == "10s" {
		time.AfterFunc(m.queue.retry, func() {
			m.queue.mu.Lock()
			defer m.queue.mu.Unlock()
			m.queue.ready = append(m.queue.ready, moved)
			m.queue.signal()
		})
	} else {
		m.queue.queues[queue] = append(m.queue.queues[queue], moved)
	}
	m.queue.mu.Unlock()
	time.Sleep(150 * time.Millisecond) // a confirm of a broker with a busy disk
	return m.Done()
}

// primary answers as its functions say.
type primary struct {
	mu     sync.Mutex
	probe  func() bool
	send   func(id string, attempt int) target.Verdict
	takes  time.Duration
	got    []string
	at     []time.Time
	flying int
	most   int
	probes int
}

func (p *primary) Probe(context.Context) (bool, target.Verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.probes++
	if p.probe == nil || p.probe() {
		return true, target.Verdict{}
	}
	return false, target.Verdict{Action: target.Pause, Reason: "down", After: time.Hour} // its page for maintenance says
}

func (p *primary) Send(_ context.Context, r *envelope.Request, try target.Try) target.Verdict {
	p.mu.Lock()
	p.got, p.at = append(p.got, r.ID), append(p.at, time.Now())
	p.flying++
	p.most = max(p.most, p.flying)
	p.mu.Unlock()
	time.Sleep(p.takes)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flying--
	if p.send == nil {
		return done
	}
	return p.send(r.ID, try.Attempt)
}

var (
	done   = target.Verdict{Action: target.Done, Status: 200}
	paused = target.Verdict{Action: target.Pause, Status: 503, Reason: "503"}
	failed = target.Verdict{Action: target.Fail, Status: 500, Reason: "500"}
	no     = target.Verdict{Action: target.Reject, Status: 422, Reason: "422"}
)

func options() Options {
	return Options{
		Parked: "parked", Retries: []Retry{{"10s", 10 * time.Second}, {"1m", time.Minute}, {"10m", 10 * time.Minute}},
		MaxAttempts: 8, Concurrency: 8, Stale: StaleDeliver,
	}
}

// drainOnce drains, in a bubble in which time is the test's own.
func drainOnce(t *testing.T, o Options, q *memory, p *primary, b Budget) Report {
	t.Helper()
	r := New(o, q, p).Once(context.Background(), b)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.inHand != 0 {
		t.Errorf("%d requests are still in hand", q.inHand)
	}
	if n := r.Delivered + r.Retried + r.Aside + r.Parked + r.Expired; n != q.settled {
		t.Errorf("the report counts %d settled requests, the queue %d", n, q.settled)
	}
	return r
}

// TestPrefetch holds that no more is taken than can be sent, that it begins with one, and how far it goes.
func TestPrefetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(500), &primary{takes: 10 * time.Millisecond}
		var first int
		p.send = func(string, int) target.Verdict {
			if len(p.got) == 1 {
				first = p.most
			}
			return done
		}
		r := drainOnce(t, options(), q, p, Budget{Time: time.Minute})
		if r.Delivered != 500 || r.End != "the queue is empty" {
			t.Errorf("got %+v", r)
		}
		if first != 1 || p.most != 8 || q.most > 16 {
			t.Errorf("%d in flight at first, %d at most, %d in hand at most; want 1, 8, 16", first, p.most, q.most)
		}
	})
}

// TestDown holds that nothing is taken while the primary is down, that it is asked at decent intervals, and that the
// run ends with its window.
func TestDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(3), &primary{probe: func() bool { return false }}
		begin := time.Now()
		r := drainOnce(t, options(), q, p, Budget{Time: 10 * time.Minute})
		if q.taken != 0 || r.Waiting != 3 || r.End != "its time is over" || r.LastError != "the primary is down: down" {
			t.Errorf("%d taken, got %+v", q.taken, r)
		}
		if took := time.Since(begin); took != 10*time.Minute {
			t.Errorf("took %s", took)
		}
		if p.probes < 500 || p.probes > 850 { // a second apart, or a little less
			t.Errorf("%d probes in ten minutes", p.probes)
		}
	})
}

// jitters are none, the most, and what is between.
var jitters = []backoff.Jitter{
	func(time.Duration) time.Duration { return 0 },
	func(below time.Duration) time.Duration { return below / 2 },
	func(below time.Duration) time.Duration { return below - 1 },
}

// TestComesAndGoes holds that a primary which is up for two seconds at a time is found each time.
func TestComesAndGoes(t *testing.T) {
	t.Parallel()
	for _, jitter := range jitters {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			up := func() bool { return time.Since(begin)%(4*time.Second) >= 2*time.Second }
			q, p := newMemory(400), &primary{takes: 100 * time.Millisecond, probe: up}
			p.send = func(string, int) target.Verdict {
				if up() {
					return done
				}
				return paused
			}
			o := options()
			o.jitter = jitter
			o.Concurrency = 1 // up to 20 each time, so 400 take 80 s at least
			r := drainOnce(t, o, q, p, Budget{Time: 10 * time.Minute})
			if r.Delivered+r.Aside != 400 || r.Aside > 80 || r.Retried+r.Parked > 0 || r.Seconds > 180 {
				t.Errorf("got %+v", r)
			}
		})
	}
}

// TestBackSoon holds how soon after its return a primary is noticed.
func TestBackSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		back := time.Now().Add(5 * time.Minute)
		q, p := newMemory(3), &primary{probe: func() bool { return time.Now().After(back) }}
		r := drainOnce(t, options(), q, p, Budget{Time: time.Hour})
		if late := time.Since(back); r.Delivered != 3 || late > 2*longestProbing {
			t.Errorf("%s late, got %+v", late, r)
		}
	})
}

// TestWithoutID holds that requests of another program that have no id are sent with one each, though they say the
// same, and moved with the one that they were sent with; and that one of them stalls nothing, though its id changes
// when it is given back.
func TestWithoutID(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(4), &primary{takes: time.Millisecond}
		for _, m := range q.ready {
			m.request.ID, m.request.Body = "", []byte("the same")
		}
		p.send = func(string, int) target.Verdict { return failed }
		r := drainOnce(t, options(), q, p, Budget{Time: time.Minute})
		var moved []string
		for _, m := range q.queues["10s"] {
			moved = append(moved, m.id)
		}
		slices.Sort(p.got)
		slices.Sort(moved)
		if r.Retried != 4 || p.got[0] == "" || len(slices.Compact(slices.Clone(p.got))) != 4 ||
			!slices.Equal(p.got, moved) {
			t.Errorf("sent %q, moved %q, got %+v", p.got, moved, r)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(10), &primary{takes: time.Millisecond}
		q.ready[0].request.ID = ""
		p.send = func(id string, _ int) target.Verdict {
			if len(id) > 1 {
				return paused
			}
			return done
		}
		if r := drainOnce(t, options(), q, p, Budget{Time: time.Minute}); r.Delivered != 9 || r.Aside != 1 {
			t.Errorf("got %+v, sent %q", r, p.got)
		}
	})
}

// TestWithoutIDToOthers holds that two requests without an id that have the same body are not taken for one another
// when they go to different places.
func TestWithoutIDToOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(2), &primary{send: func(string, int) target.Verdict { return no }}
		for i, m := range q.ready {
			m.request.ID, m.request.Target = "", fmt.Sprint("/", i)
		}
		q.full["parked"] = true
		d := New(options(), q, p)
		for range 3 {
			d.Once(context.Background(), Budget{Time: time.Minute})
		}
		if len(p.got) != 2 {
			t.Errorf("%d were sent, want both", len(p.got))
		}
	})
}

// TestRetrying holds that the report tells what waits for a further attempt from what has come again, whether it has
// an id or not.
func TestRetrying(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"0", ""} {
		synctest.Test(t, func(t *testing.T) {
			q, p := newMemory(200), &primary{takes: 100 * time.Millisecond}
			q.retry, q.ready[0].request.ID = time.Second, id
			o := options()
			o.Concurrency = 1
			var failures int
			p.send = func(id string, attempt int) target.Verdict {
				if failed := target.Verdict(failed); (len(p.got) == 1 || len(p.got) == 200) && attempt == 1 {
					failures++
					return failed
				}
				return done
			}
			r := New(o, q, p).Once(context.Background(), Budget{Time: time.Hour})
			if r.Retried != failures || failures != 2 || r.Retrying != 1 {
				t.Errorf("id %q: got %+v", id, r)
			}
		})
	}
}

// TestNoOverlap holds that a run does nothing beside another, also while that one sleeps, that a Drainer is not closed
// under a run, and that none begins once it is.
func TestNoOverlap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(3), &primary{probe: func() bool { return false }}
		d := New(options(), q, p)
		first := make(chan Report)
		go func() { first <- d.Once(context.Background(), Budget{Time: time.Minute}) }()
		time.Sleep(30 * time.Second)
		probed := func() int {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.probes
		}
		begin, probes := time.Now(), probed()
		busy := Report{Waiting: -1, End: "another run is under way"}
		if r := d.Once(context.Background(), Budget{Time: time.Minute}); r != busy || time.Since(begin) != 0 ||
			probed() != probes {
			t.Errorf("beside another: got %+v after %s and %d probes", r, time.Since(begin), probed()-probes)
		}
		if d.Close() {
			t.Error("it was closed under a run")
		}
		if r := <-first; r.End != "its time is over" {
			t.Errorf("the first: got %+v", r)
		}
		if !d.Close() {
			t.Error("it was not closed after the run")
		}
		if r := d.Once(context.Background(), Budget{Time: time.Minute}); r != busy {
			t.Errorf("after its end: got %+v", r)
		}
	})
}

// TestHalved holds that half as many are sent at the same time after a failure, and after a pause, when one has been
// answered.
func TestHalved(t *testing.T) {
	t.Parallel()
	const bad, most = 200, 16
	for _, row := range []struct {
		name     string
		verdict  target.Verdict
		from, to time.Duration // after it, before there are more again
	}{
		{"500", failed, 12 * time.Millisecond, 22 * time.Millisecond},
		{"a time-out", target.Verdict{Action: target.Fail, Reason: "no answer"}, 12 * time.Millisecond,
			22 * time.Millisecond},
		{"503", paused, 12 * time.Millisecond, 22 * time.Millisecond},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q, p := newMemory(1000), &primary{takes: 10 * time.Millisecond}
				var at time.Time
				var since, before, after int
				p.send = func(id string, _ int) target.Verdict {
					if at.IsZero() {
						before = max(before, p.flying+1)
					} else if d := time.Since(at); d >= row.from && d <= row.to && since < 25 {
						since++
						after = max(after, p.flying+1)
					}
					if id == fmt.Sprint(bad) && at.IsZero() {
						at = time.Now()
						return row.verdict
					}
					return done
				}
				o := options()
				o.Concurrency = most
				drainOnce(t, o, q, p, Budget{Time: time.Minute})
				if before != most || after < most/2 || after > most/2+3 { // it is let grow again
					t.Errorf("%d at the same time before, %d after", before, after)
				}
			})
		})
	}
}

// TestRateBoundsWhatIsTaken holds that no more is taken than the rate lets be sent soon.
func TestRateBoundsWhatIsTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(1000), &primary{takes: 10 * time.Millisecond}
		o := options()
		o.Concurrency, o.Rate = 200, 5
		if r := drainOnce(t, o, q, p, Budget{Time: 2 * time.Minute}); r.Delivered < 590 || q.most > 4 {
			t.Errorf("%d in hand at 5 a second; got %+v", q.most, r)
		}
	})
}

// TestSlowQueue holds that a queue whose messages take their time to come is waited for.
func TestSlowQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(5), &primary{}
		slow := &slowQueue{q}
		r := New(options(), slow, p).Once(context.Background(), Budget{Time: time.Minute})
		if r.Delivered != 5 || r.Pauses != 0 || p.probes != 1 {
			t.Errorf("got %+v, %d probes", r, p.probes)
		}
	})
}

// TestEnd holds how soon a run ends after its last answer, and that a source which is far away is not asked what is
// left while its deliveries are under way.
func TestEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		if r := drainOnce(t, options(), newMemory(3), &primary{}, Budget{Time: time.Minute}); r.Delivered != 3 ||
			r.Seconds > 0.1 {
			t.Errorf("got %+v", r)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		far := &farQueue{memory: newMemory(10)}
		o := options()
		o.Concurrency = 1
		// before, twice at the end, and after
		if r := New(o, far, &primary{}).Once(context.Background(), Budget{Time: time.Minute}); r.Delivered != 10 ||
			far.asked > 4 {
			t.Errorf("got %+v, asked %d times", r, far.asked)
		}
	})
}

type farQueue struct {
	*memory
	asked int
}

const farTrip = 100 * time.Millisecond

func (q *farQueue) Take(ctx context.Context, ahead int) error {
	time.Sleep(2 * farTrip)
	return q.memory.Take(ctx, ahead)
}

func (q *farQueue) Next(ctx context.Context) (Delivery, error) {
	time.Sleep(farTrip)
	return q.memory.Next(ctx)
}

func (q *farQueue) Waiting(ctx context.Context) (int, error) {
	q.asked++
	return q.memory.Waiting(ctx)
}

type slowQueue struct{ *memory }

func (q *slowQueue) Next(ctx context.Context) (Delivery, error) {
	time.Sleep(3100 * time.Millisecond) // not when the drain looks whether anything waits
	return q.memory.Next(ctx)
}

// TestBreaker holds that when everything fails, it is the primary's fault: the requests are not all sent to fail.
func TestBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		healed := time.Now().Add(30 * time.Second)
		q, p := newMemory(200), &primary{takes: time.Millisecond}
		p.send = func(string, int) target.Verdict {
			if time.Now().Before(healed) {
				return failed
			}
			return done
		}
		r := drainOnce(t, options(), q, p, Budget{Time: time.Hour})
		if r.Delivered+r.Retried+r.Aside < 200 || r.Retried > 40 || r.Parked != 0 || r.Pauses == 0 {
			t.Errorf("got %+v", r)
		}
	})
}

func TestAttempts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(4), &primary{}
		p.send = func(id string, _ int) target.Verdict { return failed }
		for i, attempts := range []int{0, 1, 5, 7} {
			q.ready[i].attempts = attempts
		}
		r := drainOnce(t, options(), q, p, Budget{Time: time.Minute})
		if r.Retried != 3 || r.Parked != 1 {
			t.Errorf("got %+v", r)
		}
		for queue, id := range map[string]string{"10s": "0", "1m": "1", "10m": "2", "parked": "3"} {
			if got := q.queues[queue]; len(got) != 1 || got[0].request.ID != id {
				t.Errorf("queue %s: got %d messages", queue, len(got))
			}
		}
		if h := q.queues["parked"][0].headers; h[HeaderReason] != "given up after 8 attempts; the last: 500" ||
			h[HeaderStatus] != int64(500) || h[HeaderAttempt] != int64(8) || h[HeaderParkedAt] == "" {
			t.Errorf("parked with %v", h)
		}
	})
}

func TestParkAndBroken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(3), &primary{send: func(id string, _ int) target.Verdict {
			if id == "0" {
				return no
			}
			return done
		}}
		q.ready[1].broken = errors.New("not JSON")
		r := drainOnce(t, options(), q, p, Budget{Time: time.Minute})
		if r.Parked != 2 || r.Delivered != 1 || slices.Contains(p.got, "1") {
			t.Errorf("got %+v, sent %v", r, p.got)
		}
	})
}

func TestStale(t *testing.T) {
	t.Parallel()
	for stale, want := range map[string]Report{
		StaleDeliver: {Delivered: 2}, StalePark: {Delivered: 1, Parked: 1}, StaleDrop: {Delivered: 1, Expired: 1},
	} {
		t.Run(stale, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q, p := newMemory(2), &primary{}
				q.ready[1].request.ReceivedAt = time.Now().Add(-time.Hour)
				o := options()
				o.MaxAge, o.Stale = 59*time.Minute, stale
				r := drainOnce(t, o, q, p, Budget{Time: time.Minute})
				if r.Delivered != want.Delivered || r.Parked != want.Parked || r.Expired != want.Expired {
					t.Errorf("got %+v, want %+v", r, want)
				}
			})
		})
	}
}

// TestRedriven holds that the age of a request counts anew when an operator has redriven it, once.
func TestRedriven(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(4), &primary{}
		// ever since: not at all, lately, long ago, before it came
		for i, ago := range []time.Duration{0, time.Minute, 2 * time.Hour, 48 * time.Hour} {
			q.ready[i].request.ReceivedAt = time.Now().Add(-24 * time.Hour)
			if ago > 0 {
				q.ready[i].redriven = time.Now().Add(-ago)
			}
		}
		o := options()
		o.MaxAge, o.Stale = time.Hour, StalePark
		r := drainOnce(t, o, q, p, Budget{Time: time.Minute})
		if r.Delivered != 1 || r.Parked != 3 || !slices.Equal(p.got, []string{"1"}) {
			t.Errorf("got %+v, sent %v", r, p.got)
		}
	})
}

// TestLargeBodies holds that large bodies have a bound, whatever the concurrency, also when they become large all of a
// sudden, and that small ones are not held back for long after large ones.
func TestLargeBodies(t *testing.T) {
	t.Parallel()
	large, huge := make([]byte, 8<<20), make([]byte, MostBytes+1)
	const fit = MostBytes / (8 << 20)
	for _, row := range []struct {
		name        string
		body        func(i int) []byte
		concurrency int
		flying      int // at the same time, at most
		heavy       int // bytes in hand, at most
	}{
		{"all are large", func(int) []byte { return large }, 32, fit, 2 * MostBytes},
		{"each is too large", func(int) []byte { return huge }, 32, 1, 2 * len(huge)},
		// eight were asked for
		{"large after small", func(i int) []byte { return large[:len(large)*(i/500)] }, 8, 8, (8 + fit) * len(large)},
		{"small after large", func(i int) []byte { return large[:len(large)*(1-min(i/20, 1))] }, 32, 32, 2 * MostBytes},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q, p := newMemory(1000), &primary{takes: 10 * time.Millisecond}
				for i, m := range q.ready {
					m.request.Body = row.body(i)
				}
				o := options()
				o.Concurrency = row.concurrency
				if r := drainOnce(t, o, q, p, Budget{Time: time.Hour}); r.Delivered != 1000 {
					t.Errorf("got %+v", r)
				}
				if p.most != row.flying || q.heavy > row.heavy {
					t.Errorf("%d in flight, want %d; %d MiB in hand, want %d", p.most, row.flying, q.heavy>>20,
						row.heavy>>20)
				}
			})
		})
	}
}

// TestNoRoom holds that what the parked queue does not take waits on a retry queue, is not sent again, and is parked
// from there; and that what no queue takes stays where it is, while the others go on.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	refuse := func(id string, _ int) target.Verdict {
		if id < "2" { // 0, 1, 10 to 19
			return no
		}
		return done
	}
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(100), &primary{send: refuse}
		q.full["parked"] = true
		r := drainOnce(t, options(), q, p, Budget{Time: time.Minute})
		if r.Aside != 12 || r.Delivered != 88 || r.Waiting != 0 || r.Parked != 0 || len(q.queues["10m"]) != 12 {
			t.Errorf("got %+v", r)
		}
		q.full["parked"], q.ready, q.queues["10m"], q.settled = false, q.queues["10m"], nil, 0
		if r := drainOnce(t, options(), q, p, Budget{Time: time.Minute}); r.Parked != 12 || len(p.got) != 100 {
			t.Errorf("when there is room: got %+v, %d sent", r, len(p.got))
		}
		if h := q.queues["parked"][0].headers; h[HeaderReason] != "422" || h[HeaderAttempt] != int64(1) {
			t.Errorf("parked with %v", h)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(100), &primary{send: refuse}
		q.full = map[string]bool{"parked": true, "10s": true, "1m": true, "10m": true}
		r := drainOnce(t, options(), q, p, Budget{Time: time.Minute})
		if r.Held != 12 || r.Delivered != 88 || r.Waiting != 12 {
			t.Errorf("no queue takes anything: got %+v", r)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(100), &primary{send: func(string, int) target.Verdict { return no }}
		q.full = map[string]bool{"parked": true, "10s": true, "1m": true, "10m": true}
		r := drainOnce(t, options(), q, p, Budget{Time: time.Hour})
		if r.Held != 100 || len(p.got) > 100 || r.Returned != 100 || r.Waiting != 100 || r.Seconds > 120 {
			t.Errorf("no queue takes anything, and all are refused: got %+v", r)
		}
	})
}

func TestBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(100), &primary{takes: 10 * time.Millisecond}
		if r := drainOnce(t, options(), q, p, Budget{Requests: 30}); r.Delivered != 30 || r.Waiting != 70 ||
			r.End != "the budget of requests is used up" {
			t.Errorf("got %+v", r)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(1000), &primary{takes: time.Second}
		r := drainOnce(t, options(), q, p, Budget{Time: 10 * time.Second})
		if r.Delivered == 0 || r.Waiting != 1000-r.Delivered || r.End != "its time is over" || r.Seconds > 12 {
			t.Errorf("got %+v", r)
		}
	})
}

// TestRate holds that the rate is kept, whatever the primary would take.
func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(100), &primary{}
		o := options()
		o.Rate = 10
		if r := drainOnce(t, o, q, p, Budget{Time: time.Minute}); r.Delivered != 100 || r.Seconds < 9.8 ||
			r.Seconds > 11 {
			t.Errorf("got %+v", r)
		}
	})
}

// TestUnsentBacklog holds that those which are not to be sent are not settled one after the other before the first that
// is, at the beginning of a run or after an outage: each would be as long as the broker takes for it, and for a new
// consumer.
func TestUnsentBacklog(t *testing.T) {
	t.Parallel()
	for _, stale := range []string{StaleDrop, StalePark} {
		for _, down := range []time.Duration{0, 5 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				const backlog, confirm = 1000, 150 * time.Millisecond
				q, began := newMemory(backlog+1), time.Now()
				p := &primary{probe: func() bool { return time.Since(began) >= down }}
				for _, m := range q.ready[:backlog] {
					m.request.ReceivedAt = began.Add(-time.Hour)
				}
				o := options()
				o.MaxAge, o.Stale = time.Minute, stale
				r := drainOnce(t, o, q, p, Budget{Time: time.Hour})
				if r.Expired+r.Parked != backlog || r.Delivered != 1 {
					t.Fatalf("%s: got %+v", stale, r)
				}
				if took := p.at[0].Sub(began) - down; took > backlog*confirm/10 {
					t.Errorf("%s, after %s: the one behind them was sent after %s", stale, down, took)
				}
				if q.taker > 20 {
					t.Errorf("%s, after %s: %d consumers", stale, down, q.taker)
				}
			})
		}
	}
}

// TestRateIsForReplays holds that what is dropped or parked without being sent does not use up the rate, and that what
// comes after it keeps to it.
func TestRateIsForReplays(t *testing.T) {
	t.Parallel()
	for _, stale := range []string{StaleDrop, StalePark} {
		synctest.Test(t, func(t *testing.T) {
			q, p := newMemory(120), &primary{takes: time.Millisecond}
			for _, m := range q.ready[:100] {
				m.request.ReceivedAt = time.Now().Add(-time.Hour)
			}
			o := options()
			o.Rate, o.MaxAge, o.Stale = 1, time.Minute, stale
			r := drainOnce(t, o, q, p, Budget{Time: time.Hour})
			if r.Expired+r.Parked != 100 || r.Delivered != 20 {
				t.Fatalf("%s: got %+v", stale, r)
			}
			if took := p.at[19].Sub(p.at[0]); took < 18*time.Second { // one leave may have been kept
				t.Errorf("%s: 20 were sent within %s", stale, took)
			}
			if r.Seconds > 50 { // 20 s, and a confirm for each that is parked
				t.Errorf("%s: it took %.0f s", stale, r.Seconds)
			}
		})
	}
}

// TestLowRate holds that the leave to send one more is not lost with the run that had no use for it: requests that come
// less often than the rate are sent as they come.
func TestLowRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(0), &primary{}
		o := options()
		o.Rate = 1.0 / 60
		d := New(o, q, p)
		for i := range 10 {
			came := time.Now()
			one := newMemory(1).ready[0]
			one.queue = q
			q.ready = append(q.ready, one)
			if r := d.Once(context.Background(), Budget{Time: time.Hour}); r.Delivered != 1 {
				t.Fatalf("run %d: got %+v", i, r)
			}
			if late := p.at[i].Sub(came); late > time.Second {
				t.Errorf("number %d was sent %s after it came", i, late)
			}
			time.Sleep(70*time.Second - time.Since(came))
		}
	})
}

// TestHalfOpen holds that the breaker settles, whatever the one request comes to that is to tell.
func TestHalfOpen(t *testing.T) {
	t.Parallel()
	for name, then := range map[string]target.Verdict{"it pauses": paused, "it fails": failed, "it is refused": no} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				q, p := newMemory(100), &primary{takes: time.Millisecond}
				p.send = func(string, int) target.Verdict {
					switch after := time.Since(begin); {
					case len(p.got) <= 2*longestStreak && after < time.Second:
						return failed
					case after < 30*time.Second:
						return then
					}
					return done
				}
				r := drainOnce(t, options(), q, p, Budget{Time: time.Hour})
				if r.Delivered+r.Retried+r.Aside+r.Parked != 100 || r.Waiting != 0 || r.Seconds > 60 {
					t.Errorf("got %+v", r)
				}
			})
		})
	}
}

// TestStop holds that a run which is to end sends nothing new and finishes what is in flight, within the grace.
func TestStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(100), &primary{takes: time.Second}
		ctx, cancel := context.WithTimeout(context.Background(), 5500*time.Millisecond)
		defer cancel()
		r := New(options(), q, p).Once(ctx, Budget{})
		if r.End != "it was stopped" || r.Delivered != len(p.got) || r.Seconds > 7 || q.inHand != 0 ||
			r.Waiting != 100-r.Delivered {
			t.Errorf("got %+v, sent %d", r, len(p.got))
		}
	})
}

// TestSlower holds that fewer are in flight when answers take longer for it, and more again when a primary has become
// slower for good.
func TestSlower(t *testing.T) {
	t.Parallel()
	p := newPace(64)
	for range 1000 {
		p.answered(10*time.Millisecond, true)
	}
	if p.limit != 64 {
		t.Fatalf("the limit is %d after a thousand good answers", p.limit)
	}
	for range 64 {
		p.answered(500*time.Millisecond, true)
	}
	if p.limit > 32 {
		t.Errorf("the limit is %d while answers take fifty times as long", p.limit)
	}
	for range 20000 {
		p.answered(500*time.Millisecond, true)
	}
	if p.limit != 64 {
		t.Errorf("the limit is %d when that has become usual", p.limit)
	}
}
