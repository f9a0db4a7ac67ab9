package drain

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"

	"fallback/functions/envelope"
	"fallback/functions/target"
)

// run is one call of Once.
type run struct {
	*Drainer
	ctx    context.Context // ends when the process does
	window context.Context // ends earlier, with the budget: nothing new is sent then
	send   context.Context // ends later: what is in flight may be finished
	close  func()

	left    int // requests of the budget; -1 for no limit
	pace    *pace
	breaker *gobreaker.TwoStepCircuitBreaker[any]
	waits   int             // pauses in a row without a good answer between them
	failing bool            // the last of them because requests failed
	paused  map[string]bool // ids of those that have paused once
	held    []Delivery
	report  Report
}

// errExcluded tells the breaker of what says nothing about the primary's health.
var errExcluded = errors.New("excluded")

// failuresInRow is how many requests in a row may fail before it is the primary's fault and not theirs.
const failuresInRow = 5

func newRun(d *Drainer, ctx, window context.Context, requests int) *run {
	r := &run{Drainer: d, ctx: ctx, window: window, left: -1, pace: newPace(d.options.Concurrency), paused: map[string]bool{}}
	if requests > 0 {
		r.left = requests
	}
	send, cancel := context.WithCancel(context.WithoutCancel(ctx))
	forget := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	r.send, r.close = send, func() { forget(); cancel() }
	r.breaker = gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{
		MaxRequests: 1,
		Timeout:     shortestWait / 2, // how long to wait is for the run to say
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= failuresInRow },
		IsExcluded:  func(err error) bool { return errors.Is(err, errExcluded) },
	})
	return r
}

// end gives back what no queue would have, and counts what is left.
func (r *run) end() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), moveTimeout)
	defer cancel()
	defer r.close()
	for _, d := range r.held {
		_ = d.Return() // if it cannot be given back, it comes back by itself
	}
	r.report.Waiting = -1
	if left, err := r.source.Left(ctx); err == nil {
		r.report.Waiting = left
	}
}

const (
	shortestWait, longestWait = 200 * time.Millisecond, 5 * time.Second
	// soonAfterProbe bounds the doubling of waits while the probe says that the primary is alive.
	soonAfterProbe = 3
)

// wait sleeps before the next probe: longer each time, and no shorter than the primary has asked for.
func (r *run) wait(asked time.Duration) {
	d := min(shortestWait<<min(r.waits, 10), longestWait)
	d = d/2 + rand.N(d/2)
	r.waits++
	timer := time.NewTimer(max(d, asked))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.window.Done():
	}
}

// pause is why a run stops taking requests for a while.
type pause struct {
	after  time.Duration
	reason string
}

// result is what became of one request in hand.
type result struct {
	delivery Delivery
	outcome  Outcome // empty: it is still in hand, and is to be returned or, when no queue would have it, held
	id       string
	attempt  int
	sent     bool
	verdict  target.Verdict
	latency  time.Duration
	err      error
}

// consume takes requests and settles them until the queue is idle (nil), the run ends (nil too), or it must pause. When it
// returns, nothing is in flight.
func (r *run) consume() *pause {
	if err := r.source.Take(r.window, r.pace.limit+len(r.held)); err != nil {
		return &pause{reason: err.Error()}
	}
	arrivals, lost, stop := r.feed()
	results := make(chan result)
	quiet := time.NewTimer(idle)
	defer quiet.Stop()
	over := r.window.Done()
	var returning []result
	var why *pause
	stopping := false
	for inFlight := 0; !stopping || inFlight > 0; {
		in := arrivals
		if stopping || inFlight >= r.pace.limit || r.left == 0 {
			in = nil
		}
		select {
		case d := <-in:
			inFlight++
			r.left = max(r.left-1, -1)
			go func() { results <- r.handle(d) }()
		case one := <-results:
			inFlight--
			quiet.Reset(idle)
			if p := r.settle(one, &returning); p != nil {
				stopping = true
				if why == nil || p.after > why.after {
					why = p
				}
			}
			stopping = stopping || r.left == 0 && inFlight == 0
		case err := <-lost:
			why, stopping, lost = &pause{reason: err.Error()}, true, nil
		case <-quiet.C:
			quiet.Reset(idle)
			stopping = stopping || inFlight == 0
		case <-over:
			stopping, over = true, nil
		}
	}
	stop()
	r.giveBack(returning, why)
	if err := r.source.Stop(r.send); err != nil && why == nil {
		why = &pause{reason: err.Error()}
	}
	if why != nil {
		r.pace.pause()
	}
	return why
}

// feed brings what the source delivers. stop ends that, and gives back what nobody has taken.
func (r *run) feed() (arrivals chan Delivery, lost chan error, stop func()) {
	ctx, cancel := context.WithCancel(r.window)
	arrivals, lost = make(chan Delivery), make(chan error, 1)
	var work sync.WaitGroup
	work.Go(func() {
		for {
			d, err := r.source.Next(ctx)
			if err != nil {
				if ctx.Err() == nil {
					lost <- err
				}
				return
			}
			select {
			case arrivals <- d:
			case <-ctx.Done():
				_ = d.Return()
				return
			}
		}
	})
	return arrivals, lost, func() {
		cancel()
		work.Wait()
	}
}

// handle replays one request and settles it, unless that is for the run to decide.
func (r *run) handle(d Delivery) result {
	out := result{delivery: d, attempt: d.Attempts() + 1}
	request, err := d.Request()
	if err != nil {
		return r.park(out, "the message cannot be read: "+err.Error())
	}
	if out.id = request.ID; out.id == "" { // another program's: it is known by what it says
		out.id = fmt.Sprintf("%x", sha256.Sum256(request.Body))
	}
	if r.isStale(request) {
		switch r.options.Stale {
		case StalePark:
			return r.park(out, fmt.Sprintf("older than %s", r.options.MaxAge))
		case StaleDrop:
			out.outcome, out.err = Expired, d.Done()
			return out
		}
	}
	done, err := r.breaker.Allow()
	if err != nil {
		out.verdict = target.Verdict{Action: target.Pause, Reason: "too many requests failed in a row"}
		return out
	}
	if r.limiter.Wait(r.window) != nil {
		done(errExcluded)
		return out
	}
	begin := time.Now()
	out.verdict, out.sent = r.target.Send(r.send, request, out.attempt), true
	out.latency = time.Since(begin)
	switch out.verdict.Action {
	case target.Done:
		done(nil)
		out.outcome, out.err = Delivered, d.Done()
	case target.Park:
		done(nil)
		return r.park(out, out.verdict.Reason)
	case target.Retry:
		done(errors.New(out.verdict.Reason))
		return r.retry(out)
	default:
		done(errExcluded)
	}
	return out
}

func (r *run) isStale(request *envelope.Request) bool {
	return r.options.MaxAge > 0 && !request.ReceivedAt.IsZero() && time.Since(request.ReceivedAt) > r.options.MaxAge
}

// park moves a request to the parked queue.
func (r *run) park(out result, reason string) result {
	return r.move(out, Parked, r.options.Parked, map[string]any{
		HeaderAttempt: int64(out.attempt), HeaderReason: reason, HeaderStatus: int64(out.verdict.Status),
		HeaderParkedAt: time.Now().UTC().Format(time.RFC3339),
	})
}

// retry moves a request to the retry queue of its attempt, or parks it after the last one.
func (r *run) retry(out result) result {
	if out.attempt >= r.options.MaxAttempts || len(r.options.Retries) == 0 {
		return r.park(out, fmt.Sprintf("given up after %d attempts; the last: %s", out.attempt, out.verdict.Reason))
	}
	queue := r.options.Retries[min(out.attempt, len(r.options.Retries))-1].Queue
	return r.move(out, Retried, queue, map[string]any{HeaderAttempt: int64(out.attempt)})
}

func (r *run) move(out result, outcome Outcome, queue string, headers map[string]any) result {
	ctx, cancel := context.WithTimeout(r.send, moveTimeout)
	defer cancel()
	if err := out.delivery.Move(ctx, queue, headers); err != nil {
		out.err = fmt.Errorf("queue %s: %w", queue, err)
		out.outcome = Held
		return out
	}
	out.outcome = outcome
	return out
}

// settle draws the conclusions from one result, and says when the run must pause.
func (r *run) settle(one result, returning *[]result) *pause {
	if one.outcome == "" {
		*returning = append(*returning, one)
		if one.verdict.Action != target.Pause {
			return nil // the run is ending
		}
		return &pause{one.verdict.After, one.verdict.Reason}
	}
	delete(r.paused, one.id)
	if one.err == nil || one.outcome == Held {
		r.count(one.outcome)
	}
	switch {
	case one.outcome == Held:
		r.options.Log.Error("a request stays where it is", "id", one.id, "error", one.err)
		r.report.Trouble = one.err.Error()
		r.held = append(r.held, one.delivery)
		if len(r.held) >= mostHeld {
			return &pause{reason: one.err.Error()}
		}
		return r.take()
	case one.err != nil:
		return &pause{reason: one.err.Error()}
	case !one.sent:
		return nil
	case one.verdict.Action == target.Retry:
		if r.breaker.State() == gobreaker.StateOpen {
			r.failing = true
			return &pause{reason: fmt.Sprintf("%d requests failed in a row; the last: %s", failuresInRow, one.verdict.Reason)}
		}
		if r.pace.halve() {
			return r.take()
		}
		return nil
	}
	r.waits, r.failing = 0, false
	if r.pace.answered(one.latency) {
		return r.take()
	}
	return nil
}

func (r *run) take() *pause {
	if err := r.source.Take(r.window, r.pace.limit+len(r.held)); err != nil && r.window.Err() == nil {
		return &pause{reason: err.Error()}
	}
	return nil
}

func (r *run) count(o Outcome) {
	switch o {
	case Delivered:
		r.report.Delivered++
	case Retried:
		r.report.Retried++
	case Parked:
		r.report.Parked++
	case Expired:
		r.report.Expired++
	case Returned:
		r.report.Returned++
	case Held:
		r.report.Held++
	}
	r.options.Count(o)
}

// giveBack returns what is in hand. A request that pauses the second time, while the primary is alive, is not returned
// but retried: the pause is its own fault.
func (r *run) giveBack(returning []result, why *pause) {
	alive := false
	for _, one := range returning {
		if one.sent && r.paused[one.id] {
			alive, _ = r.target.Probe(r.window)
			break
		}
	}
	for _, one := range returning {
		if alive && one.sent && r.paused[one.id] {
			out := r.retry(one)
			if out.err == nil {
				delete(r.paused, one.id)
				r.count(out.outcome)
				if why != nil {
					why.after = 0
				}
				continue
			}
		}
		if one.sent {
			r.paused[one.id] = true
		}
		if err := one.delivery.Return(); err == nil {
			r.count(Returned)
		}
	}
}
