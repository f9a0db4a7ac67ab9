package drain

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"
)

// Grace bounds how long [Drainer.Once] goes on after its ctx has ended: answers may come for lastAnswers, what was cut
// off is settled within wrapUpTime, and the rest is for the last look at the queue and a connection that does not
// close.
const Grace = 12 * time.Second

const (
	// lastAnswers is for how long requests in flight may go on when the run is to end.
	lastAnswers = 8 * time.Second
	// wrapUpTime is for how long after that requests may be requeued or moved, and what should have ended may last.
	wrapUpTime = time.Second
	// moveTimeout bounds the move of one request to another queue.
	moveTimeout = 5 * time.Second
	// mostHeld bounds the requests that no queue takes, before the run ends.
	mostHeld = mostRemembered
	// MostBytes bounds the bodies with us, if all are as large as the largest of the last ones; one alone may be
	// larger. One of the largest that RabbitMQ 4 takes by default (16 MiB) is alone then.
	MostBytes = 24 << 20
	// longestUnacked bounds how long a request is kept. RabbitMQ closes the channel of a consumer that keeps one for
	// half an hour (consumer_timeout).
	longestUnacked = 5 * time.Minute
	// lookEvery bounds how often Ready asks the source, lookTimeout for how long: who asks for it has five seconds.
	lookEvery, lookTimeout = time.Second, 3 * time.Second
)

// Once drains until the queue is empty, the budget is used up, or ctx ends. A request that is cut off at the end goes
// back, and that is not counted as an attempt. While another run is under way, it does nothing, and says so.
func (d *Drainer) Once(ctx context.Context, b Budget) Report {
	if !d.running.TryLock() {
		return Report{Waiting: -1, End: "another run is under way"}
	}
	defer d.running.Unlock()
	begin := time.Now()
	window, cancel := ctx, context.CancelFunc(func() {})
	if b.Time > 0 {
		window, cancel = context.WithTimeoutCause(ctx, b.Time, errTime)
	}
	defer cancel()
	limits, end := newLimits(ctx, window, d.options.Timeout)
	defer end()
	r := newRun(d, limits, b.Requests)
	r.judge.outage.resume(begin)
	r.loop()
	r.occupied.Store(false)
	return r.conclude(ctx, begin)
}

// conclude completes the report: how the run has ended, and what is left.
func (r *run) conclude(ctx context.Context, begin time.Time) Report {
	report := &r.books.report
	if r.moved > 0 && r.unmoved == 0 {
		r.troubles.set(NoRoom, false, "")
	}
	report.End, report.Retrying, report.Seconds = r.end, len(r.books.away), time.Since(begin).Seconds()
	switch {
	case report.Retrying > 0 || r.unmoved > 0: // they may come much later, if the primary has asked for that
		r.troubles.renew()
	case r.end == empty:
		r.troubles.forget(r.options.longestRetry())
	}
	if r.end == empty && r.unmoved == 0 {
		return *report
	}
	patience := moveTimeout
	if ctx.Err() != nil {
		patience = 500 * time.Millisecond // the process is to end
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	report.Waiting = -1
	if !acquire(ctx, &r.using) { // a feeder that does not end
		return *report
	}
	defer r.using.Unlock()
	if left, err := r.source.Left(ctx, math.MaxInt); err == nil {
		report.Waiting = left
	}
	return *report
}

// errTime is why a window has ended: the budget's time is over.
var errTime = errors.New("its time is over")

func (r *run) whyOver() string {
	if errors.Is(context.Cause(r.window), errTime) {
		return errTime.Error()
	}
	return "it was stopped"
}

func newLimits(ctx, window context.Context, timeout time.Duration) (l limits, end func()) {
	send, cut := context.WithCancel(context.WithoutCancel(ctx))
	wrapUp, last := context.WithCancel(context.WithoutCancel(ctx))
	forget := context.AfterFunc(ctx, func() {
		time.AfterFunc(lastAnswers, cut)
		time.AfterFunc(lastAnswers+wrapUpTime, last)
	})
	overrun := context.AfterFunc(window, func() {
		if timeout > 0 { // an answer may take that long, and then the tries to move the request
			time.AfterFunc(timeout+5*moveTimeout, last)
		}
	})
	l = limits{window: window, send: send, wrapUp: wrapUp, ended: make(chan struct{})}
	return l, func() { forget(); overrun(); cut(); last(); close(l.ended) }
}

func newRun(d *Drainer, l limits, requests int) *run {
	r := &run{
		never: time.Now().Add(1000 * time.Hour), Drainer: d, limits: l, unspent: -1,
		pace:   newPace(d.options.Concurrency),
		feeder: feeder{arrivals: make(chan *item)},
		events: make(chan func(time.Time)),
		books:  books{away: map[string]bool{}, count: d.options.Count, log: d.options.Log},
	}
	if requests > 0 {
		r.unspent = requests
	}
	return r
}

// Close is for after the last run: no other begins, and Ready does not ask the source any more. It says false, and
// does nothing, while a run is under way. It also says false when a call of the source does not end: then no other run
// begins, but Ready may still ask, and the caller must not close the source.
func (d *Drainer) Close() bool {
	if !d.running.TryLock() {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), wrapUpTime)
	defer cancel()
	if !acquire(ctx, &d.using) {
		return false
	}
	defer d.using.Unlock()
	d.closed = true
	return true
}

// acquire locks a mutex, unless ctx ends before.
func acquire(ctx context.Context, mu *sync.Mutex) bool {
	for !mu.TryLock() {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	return true
}
