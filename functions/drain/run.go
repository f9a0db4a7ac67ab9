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

	left     int // requests of the budget; -1 for no limit
	pace     *pace
	breaker  *gobreaker.TwoStepCircuitBreaker[any]
	waits    int      // pauses in a row without a good answer between them
	answers  bool     // the last of them although the primary answered, so that its probe tells nothing
	suspects []result // they have paused twice, alone; the next request will tell whose fault that is
	held     []result // no queue would have them
	fresh    int      // of these, since the source was last asked for more
	report   Report

	overfull bool // there were too many of them
}

// errExcluded tells the breaker of what says nothing about the primary's health.
var errExcluded = errors.New("excluded")

// failuresInRow is how many requests in a row may fail before it is the primary's fault and not theirs.
const failuresInRow = 5

// mostSuspects is how many requests may pause in a row, alone, before it is the primary's fault.
const mostSuspects = 5

// pausesAlone is how often a request may pause with nothing else to send, before it is its own fault.
const pausesAlone = 5

func newRun(d *Drainer, ctx, window context.Context, requests int) *run {
	r := &run{Drainer: d, ctx: ctx, window: window, left: -1, pace: newPace(d.options.Concurrency)}
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

// end gives back what is in hand, and counts what is left.
func (r *run) end() {
	defer r.close()
	r.letGo()
	patience := moveTimeout
	if r.ctx.Err() != nil {
		patience = 500 * time.Millisecond // the process is to end
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), patience)
	defer cancel()
	r.report.Waiting = -1
	if left, err := r.source.Left(ctx); err == nil {
		r.report.Waiting = left
	}
}

// letGo gives back what was kept from one consume to the next.
func (r *run) letGo() {
	for _, one := range r.suspects {
		r.giveBack(one)
	}
	for _, one := range r.held {
		_ = one.delivery.Return() // if it cannot be given back, it comes back by itself
	}
	r.suspects, r.held, r.fresh = nil, nil, 0
}

const (
	shortestWait, longestWait = 200 * time.Millisecond, 5 * time.Second
	// soonAfterProbe bounds the doubling of waits while the probe says that the primary is alive.
	soonAfterProbe = 3
)

// wait sleeps before the next probe: longer each time, and no shorter than the primary has asked for, which holds for the
// runs to come, too.
func (r *run) wait(asked time.Duration) {
	d := min(shortestWait<<min(r.waits, 10), longestWait)
	d = d/2 + rand.N(d/2)
	r.waits++
	if asked > 0 {
		r.notBefore = time.Now().Add(asked + rand.N(shortestWait/4)) // workers that were told the same do not come at once
	}
	r.sleep(max(d, time.Until(r.notBefore)))
}

// sleep ends with the window, at the latest.
func (r *run) sleep(d time.Duration) {
	timer := time.NewTimer(d)
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
	lost   bool // the connection to the broker: what was in hand is not any more
}

// result is what became of one request in hand.
type result struct {
	delivery Delivery
	outcome  Outcome // empty: it is still in hand, and is to be returned or, when no queue would have it, held
	key      string  // tells requests apart
	attempt  int
	alone    bool // nothing else could be in flight
	sent     bool
	tripped  bool // it has opened the breaker
	verdict  target.Verdict
	latency  time.Duration
	err      error
}

// stuckAfter is how long nothing may come while something waits.
const stuckAfter = 10 * time.Second

// consume takes requests and settles them until the queue is empty or the run is over (nil), or it must pause. When it
// returns, nothing is in flight.
func (r *run) consume() (why *pause) {
	if err := r.source.Take(r.send, r.pace.limit); err != nil {
		return &pause{reason: err.Error(), lost: true}
	}
	r.fresh = 0
	arrivals, lost, stop := r.feed()
	results := make(chan result)
	quiet := time.NewTicker(idle)
	defer quiet.Stop()
	over, last := r.window.Done(), time.Now()
	var returning []result
	var turn turn
	stopping := false
	halt := func(p *pause) {
		if stopping = true; p != nil && (why == nil || p.after > why.after) {
			why = p
		}
	}
	for inFlight := 0; !stopping || inFlight > 0; {
		var in <-chan Delivery
		if !stopping && inFlight < r.pace.limit && r.left != 0 && turn.has(r) {
			in = arrivals
		}
		select {
		case d := <-in:
			inFlight++
			r.left = max(r.left-1, -1)
			turn.use()
			last = time.Now()
			go func(alone bool) { results <- r.handle(d, alone) }(r.pace.limit == 1)
		case one := <-results:
			inFlight--
			last = time.Now()
			p := r.settle(one, &returning)
			if p != nil || r.left == 0 && inFlight == 0 {
				halt(p)
			}
		case <-turn.due:
			turn.come()
		case err := <-lost:
			lost = nil
			if stopping = true; why == nil {
				why = &pause{reason: err.Error()}
			}
			why.lost = true
		case <-quiet.C:
			if inFlight > 0 || stopping || in == nil || time.Since(last) < idle {
				continue
			}
			waiting, err := r.source.Waiting(r.window)
			switch {
			case err != nil && r.window.Err() == nil:
				halt(&pause{reason: err.Error(), lost: true})
			case waiting == 0:
				halt(nil)
			case time.Since(last) > stuckAfter:
				halt(&pause{reason: "requests wait on the queue, and none comes"})
			}
		case <-over:
			stopping, over = true, nil
		}
	}
	stop()
	if err := r.source.Stop(r.send); err != nil && why == nil { // before anything goes back: it would come again at once
		why = &pause{reason: err.Error(), lost: true}
	}
	r.conclude(returning, why)
	return why
}

// turn is the leave to take one more request, by the rate.
type turn struct {
	granted bool
	due     <-chan time.Time
}

// has says whether one may be taken now, and sees to it that due says when, if not.
func (t *turn) has(r *run) bool {
	if !t.granted && t.due == nil {
		delay := r.limiter.Reserve().Delay()
		t.granted = delay == 0
		if !t.granted {
			t.due = time.After(delay)
		}
	}
	return t.granted
}

func (t *turn) come() { t.granted, t.due = true, nil }
func (t *turn) use()  { t.granted = false }

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
func (r *run) handle(d Delivery, alone bool) result {
	out := result{delivery: d, attempt: d.Attempts() + 1, alone: alone}
	request, err := d.Request()
	if err != nil {
		return r.park(out, "the message cannot be read: "+err.Error())
	}
	if out.key = request.ID; out.key == "" { // another program's: it is known by what it says
		out.key = fmt.Sprintf("%x", sha256.Sum256(request.Body))
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
		out.tripped = r.breaker.State() == gobreaker.StateOpen // now: it does not stay open for long
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
	tried := out.attempt
	if !out.sent {
		tried--
	}
	return r.move(out, Parked, r.options.Parked, map[string]any{
		HeaderAttempt: int64(tried), HeaderReason: reason, HeaderStatus: int64(out.verdict.Status),
		HeaderParkedAt: time.Now().UTC().Format(time.RFC3339),
	})
}

// retry moves a request to the retry queue of its attempt, or parks it after the last one.
func (r *run) retry(out result) result {
	if out.attempt >= r.options.MaxAttempts || len(r.options.Retries) == 0 {
		return r.park(out, fmt.Sprintf("given up after %d attempts; the last: %s", out.attempt, out.verdict.Reason))
	}
	queue := r.options.Retries[min(out.attempt, len(r.options.Retries))-1]
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
		r.answers = one.verdict.Status != 0
		return &pause{after: one.verdict.After, reason: one.verdict.Reason}
	}
	delete(r.paused, one.key)
	if one.sent {
		if p := r.blame(); p != nil {
			return p
		}
	}
	return r.book(one)
}

// blame is for when the primary has answered another request: then it was the suspects' own fault that they have paused.
func (r *run) blame() (p *pause) {
	guilty := r.suspects
	r.suspects = nil
	for _, one := range guilty {
		one = r.retry(one)
		delete(r.paused, one.key)
		if q := r.book(one); q != nil {
			p = q
		}
	}
	return p
}

// book counts a result and keeps the pace.
func (r *run) book(one result) *pause {
	if one.err == nil || one.outcome == Held {
		r.count(one.outcome)
	}
	switch {
	case one.outcome == Held:
		return r.hold(one)
	case one.err != nil:
		return &pause{reason: one.err.Error(), lost: true}
	case !one.sent, one.verdict.Action == target.Pause: // the second is the suspect's
		return nil
	case one.tripped:
		r.answers = true
		return &pause{reason: fmt.Sprintf("%d requests failed in a row; the last: %s", failuresInRow, one.verdict.Reason)}
	case one.verdict.Action == target.Retry:
		if r.pace.halve() {
			return r.take()
		}
		return nil
	}
	r.waits, r.answers = 0, false
	if r.pace.answered(one.latency) {
		return r.take()
	}
	return nil
}

// hold keeps a request in hand that no queue would have: given back, it would come again at once.
func (r *run) hold(one result) *pause {
	r.options.Log.Error("a request stays where it is", "id", one.key, "error", one.err)
	r.report.Trouble = one.err.Error()
	r.held = append(r.held, one)
	r.fresh++
	switch {
	case len(r.held) >= mostHeld:
		r.overfull = true
		return &pause{reason: one.err.Error()}
	case r.fresh >= r.pace.limit: // else the source would wait for these to be settled
		return r.take()
	}
	return nil
}

// take asks the source for as many as may be in flight now. What is in hand already comes on top, so that for a moment
// after a change there may be up to twice as many in hand; no more are sent.
func (r *run) take() *pause {
	r.fresh = 0
	if err := r.source.Take(r.send, r.pace.limit); err != nil {
		return &pause{reason: err.Error(), lost: true}
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

// conclude gives back what is in hand at the end of a consume. A request that has paused before, and has now paused
// alone, is kept instead: whether that is its fault is for the next one to tell. When too many do so in a row, it is
// nobody's.
func (r *run) conclude(returning []result, why *pause) {
	if why != nil && why.lost { // with the connection, all of it
		r.suspects, r.held, r.fresh = nil, nil, 0
		return
	}
	if why == nil && len(returning) == 0 {
		return // the queue is empty, or the run over: what is kept goes back in the end
	}
	r.pace.pause()
	if len(returning) == 1 && r.suspicious(returning[0]) {
		return
	}
	r.letGo()
	for _, one := range returning {
		r.giveBack(one)
	}
}

// suspicious counts a pause, and says whether the request is settled or kept for it.
func (r *run) suspicious(one result) bool {
	if !one.sent || !one.alone {
		return false
	}
	r.paused[one.key]++
	switch again := r.paused[one.key]; {
	case again > pausesAlone && r.nothingElse():
		out := r.retry(one)
		if out.err != nil {
			return false
		}
		delete(r.paused, one.key)
		r.count(out.outcome)
		return true
	case again > 1 && len(r.suspects) < mostSuspects:
		r.suspects = append(r.suspects, one)
		return true
	}
	return false
}

// nothingElse says that no other request waits, so that none can tell whose fault a pause is.
func (r *run) nothingElse() bool {
	waiting, err := r.source.Waiting(r.send)
	return err == nil && waiting == 0
}

func (r *run) giveBack(one result) {
	if one.delivery.Return() == nil {
		r.count(Returned)
	}
}
