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
	taken   int // deliveries
	more    chan struct{}
	taking  bool
	settled int
}

type message struct {
	queue    *memory
	request  *envelope.Request
	broken   error
	attempts int
	headers  map[string]any
	taker    int // the consumer that it was delivered to
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

func (q *memory) Left(ctx context.Context) (int, error) { return q.Waiting(ctx) }

func (q *memory) Take(_ context.Context, ahead int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.credit, q.taking = ahead, true
	q.taker++
	q.signal()
	return nil
}

func (q *memory) Stop(context.Context) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taking = false
	return nil
}

func (q *memory) Next(ctx context.Context) (Delivery, error) {
	for {
		q.mu.Lock()
		if q.taking && len(q.ready) > 0 && q.credit > 0 {
			m := q.ready[0]
			q.ready = q.ready[1:]
			q.credit--
			m.taker = q.taker
			q.inHand++
			q.taken++
			q.most = max(q.most, q.inHand)
			q.mu.Unlock()
			return m, nil
		}
		q.mu.Unlock()
		select {
		case <-q.more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// signal says that something has changed; the caller holds mu.
func (q *memory) signal() {
	select {
	case q.more <- struct{}{}:
	default:
	}
}

func (m *message) Request() (*envelope.Request, error) { return m.request, m.broken }
func (m *message) Attempts() int                       { return m.attempts }

func (m *message) Done() error {
	m.queue.mu.Lock()
	defer m.queue.mu.Unlock()
	m.queue.settled++
	m.leave()
	return nil
}

func (m *message) Return() error {
	m.queue.mu.Lock()
	defer m.queue.mu.Unlock()
	m.queue.ready = append([]*message{m}, m.queue.ready...)
	m.leave()
	return nil
}

// leave is for a message that is not in hand any more; the caller holds mu.
func (m *message) leave() {
	m.queue.inHand--
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
	moved := &message{queue: m.queue, request: m.request, headers: maps.Clone(headers)}
	m.queue.queues[queue] = append(m.queue.queues[queue], moved)
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
	return false, target.Verdict{Action: target.Pause, Reason: "down"}
}

func (p *primary) Send(_ context.Context, r *envelope.Request, attempt int) target.Verdict {
	p.mu.Lock()
	p.got = append(p.got, r.ID)
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
	return p.send(r.ID, attempt)
}

var (
	done   = target.Verdict{Action: target.Done, Status: 200}
	paused = target.Verdict{Action: target.Pause, Status: 503, Reason: "503"}
	failed = target.Verdict{Action: target.Retry, Status: 500, Reason: "500"}
	no     = target.Verdict{Action: target.Park, Status: 404, Reason: "404"}
)

func options() Options {
	return Options{
		Parked: "parked", Retries: []string{"10s", "1m", "10m"}, MaxAttempts: 8, Concurrency: 8, Stale: StaleDeliver,
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
	if n := r.Delivered + r.Retried + r.Parked + r.Expired; n != q.settled {
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

// TestDown holds that nothing is taken while the primary is down, that it is asked at decent intervals, and that the run
// ends with its window.
func TestDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(3), &primary{probe: func() bool { return false }}
		begin := time.Now()
		r := drainOnce(t, options(), q, p, Budget{Time: 10 * time.Minute})
		if q.taken != 0 || r.Waiting != 3 || r.End != "its time is over" || r.Trouble != "the primary is down: down" {
			t.Errorf("%d taken, got %+v", q.taken, r)
		}
		if took := time.Since(begin); took != 10*time.Minute {
			t.Errorf("took %s", took)
		}
		if p.probes < 120 || p.probes > 260 {
			t.Errorf("%d probes in ten minutes", p.probes)
		}
	})
}

// TestBackSoon holds how soon after its return a primary is noticed.
func TestBackSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		back := time.Now().Add(5 * time.Minute)
		q, p := newMemory(3), &primary{probe: func() bool { return time.Now().After(back) }}
		r := drainOnce(t, options(), q, p, Budget{Time: time.Hour})
		if late := time.Since(back); r.Delivered != 3 || late > longestWait+time.Second {
			t.Errorf("%s late, got %+v", late, r)
		}
	})
}

// TestPause holds that a pause gives everything back, waits as long as the primary asks, and begins again with one.
func TestPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(100), &primary{takes: 10 * time.Millisecond}
		var until time.Time
		var early int
		p.send = func(string, int) target.Verdict {
			switch {
			case len(p.got) >= 40 && until.IsZero():
				until = time.Now().Add(time.Minute)
			case time.Now().Before(until.Add(-20 * time.Millisecond)):
				early++
			}
			if time.Now().Before(until) {
				v := paused
				v.After = time.Until(until)
				return v
			}
			return done
		}
		r := drainOnce(t, options(), q, p, Budget{Time: time.Hour})
		if r.Delivered != 100 || r.Parked+r.Retried != 0 || r.Pauses != 1 || r.Returned == 0 || r.Returned > 8 {
			t.Errorf("got %+v", r)
		}
		if early > 8 {
			t.Errorf("%d were sent while the primary wanted to be left alone", early)
		}
	})
}

// TestNoSingleRequestStalls holds that a request which pauses again and again, while the primary is alive, is treated as
// one that fails, and parked after its attempts; and that a primary which is down is no fault of a request.
func TestNoSingleRequestStalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(50), &primary{takes: time.Millisecond}
		p.send = func(id string, _ int) target.Verdict {
			if id == "7" {
				return paused
			}
			return done
		}
		r := drainOnce(t, options(), q, p, Budget{Time: time.Minute})
		if r.Delivered != 49 || r.Retried != 1 || len(q.queues["10s"]) != 1 || r.Waiting != 0 {
			t.Errorf("got %+v", r)
		}
		again := q.queues["10s"][0]
		if again.headers[HeaderAttempt] != int64(1) {
			t.Errorf("its headers: %v", again.headers)
		}
		again.attempts = 7
		q.ready = append(q.ready, again)
		q.settled = 0
		if r := drainOnce(t, options(), q, p, Budget{Time: time.Minute}); r.Parked != 1 || len(q.queues["parked"]) != 1 {
			t.Errorf("after its last attempt: got %+v", r)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		q := newMemory(5)
		down := func() bool { return time.Now().Nanosecond() < 5e8 } // half of each second, the probe says so too
		p := &primary{takes: time.Millisecond, probe: func() bool { return !down() }}
		p.send = func(string, int) target.Verdict {
			if down() {
				return paused
			}
			return done
		}
		if r := drainOnce(t, options(), q, p, Budget{Time: time.Minute}); r.Delivered != 5 || r.Retried+r.Parked != 0 {
			t.Errorf("a primary that comes and goes: got %+v", r)
		}
	})
}

// TestBlame holds whose fault a pause is.
func TestBlame(t *testing.T) {
	t.Parallel()
	// away is a primary whose probe is alive and who answers everything with 503 for an hour, as a proxy before it does.
	synctest.Test(t, func(t *testing.T) {
		back := time.Now().Add(time.Hour)
		q, p := newMemory(30), &primary{takes: time.Millisecond}
		p.send = func(string, int) target.Verdict {
			if time.Now().Before(back) {
				return paused
			}
			return done
		}
		if r := drainOnce(t, options(), q, p, Budget{Time: 2 * time.Hour}); r.Delivered+r.Retried != 30 || r.Retried > mostSuspects || r.Parked != 0 { // the suspects at its return
			t.Errorf("a primary that is away behind a proxy: got %+v", r)
		}
		if n := len(p.got); n > 1200 {
			t.Errorf("it was sent %d requests meanwhile", n)
		}
	})
	// crash is a request that takes the primary down for ten seconds.
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(30), &primary{takes: time.Millisecond}
		var down time.Time
		p.probe = func() bool { return time.Now().After(down) }
		p.send = func(id string, _ int) target.Verdict {
			if id == "7" {
				down = time.Now().Add(10 * time.Second)
			}
			if time.Now().Before(down) {
				return paused
			}
			return done
		}
		if r := drainOnce(t, options(), q, p, Budget{Time: time.Hour}); r.Delivered != 29 || r.Retried != 1 || len(q.queues["10s"]) != 1 || q.queues["10s"][0].request.ID != "7" {
			t.Errorf("a request that takes the primary down: got %+v", r)
		}
	})
	// Alone on the queue, nothing can tell; in the end it is retried.
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(1), &primary{takes: time.Millisecond, send: func(string, int) target.Verdict { return paused }}
		if r := drainOnce(t, options(), q, p, Budget{Time: time.Hour}); r.Retried != 1 || len(p.got) != pausesAlone+1 {
			t.Errorf("alone: got %+v, sent %d times", r, len(p.got))
		}
	})
}

// TestRetryAfterOutlastsTheRun holds that a primary which asks to be left alone is, by the next run too.
func TestRetryAfterOutlastsTheRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		until := time.Now().Add(30 * time.Minute)
		q, p := newMemory(3), &primary{}
		p.send = func(string, int) target.Verdict {
			if time.Now().Before(until) {
				v := paused
				v.After = time.Until(until)
				return v
			}
			return done
		}
		d := New(options(), q, p)
		for range 29 {
			d.Once(context.Background(), Budget{Time: time.Minute})
		}
		if len(p.got) != 1 || p.probes != 1 {
			t.Errorf("it was sent %d requests and %d probes meanwhile", len(p.got), p.probes)
		}
		if r := d.Once(context.Background(), Budget{Time: 5 * time.Minute}); r.Delivered != 3 {
			t.Errorf("afterwards: got %+v", r)
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
		if r.Delivered+r.Retried != 200 || r.Retried > 30 || r.Parked != 0 || r.Pauses == 0 {
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
		if h := q.queues["parked"][0].headers; h[HeaderReason] != "given up after 8 attempts; the last: 500" || h[HeaderStatus] != int64(500) || h[HeaderAttempt] != int64(8) || h[HeaderParkedAt] == "" {
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

// TestNoRoom holds that what no queue would have stays where it is, and that the others go on.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(100), &primary{send: func(id string, _ int) target.Verdict {
			if id < "2" {
				return no
			}
			return done
		}}
		q.full["parked"] = true
		r := drainOnce(t, options(), q, p, Budget{Time: time.Minute})
		if r.Held != 12 || r.Delivered != 88 || r.Waiting != 12 || r.Parked != 0 { // 0, 1, 10 to 19
			t.Errorf("got %+v", r)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(100), &primary{send: func(string, int) target.Verdict { return no }}
		q.full["parked"] = true
		r := drainOnce(t, options(), q, p, Budget{Time: time.Hour})
		if r.Held < mostHeld || r.Held > mostHeld+8 || r.Waiting != 100 || r.Seconds > 60 {
			t.Errorf("when nothing can be parked: got %+v", r)
		}
	})
}

func TestBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(100), &primary{takes: 10 * time.Millisecond}
		if r := drainOnce(t, options(), q, p, Budget{Requests: 30}); r.Delivered != 30 || r.Waiting != 70 || r.End != "the budget of requests is used up" {
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
		if r := drainOnce(t, o, q, p, Budget{Time: time.Minute}); r.Delivered != 100 || r.Seconds < 9.8 || r.Seconds > 11 {
			t.Errorf("got %+v", r)
		}
	})
}

// TestStop holds that a run which is to end sends nothing new and finishes what is in flight, within the grace.
func TestStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(100), &primary{takes: time.Second}
		ctx, cancel := context.WithTimeout(context.Background(), 5500*time.Millisecond)
		defer cancel()
		r := New(options(), q, p).Once(ctx, Budget{})
		if r.End != "it was stopped" || r.Delivered != len(p.got) || r.Seconds > 7 || q.inHand != 0 || r.Waiting != 100-r.Delivered {
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
		p.answered(10 * time.Millisecond)
	}
	if p.limit != 64 {
		t.Fatalf("the limit is %d after a thousand good answers", p.limit)
	}
	for range 64 {
		p.answered(500 * time.Millisecond)
	}
	if p.limit > 32 {
		t.Errorf("the limit is %d while answers take fifty times as long", p.limit)
	}
	for range 20000 {
		p.answered(500 * time.Millisecond)
	}
	if p.limit != 64 {
		t.Errorf("the limit is %d when that has become usual", p.limit)
	}
}
