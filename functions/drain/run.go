package drain

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"

	"fallback/functions/envelope"
	"fallback/functions/target"
)

// run is one call of Once.
type run struct {
	*Drainer
	ctx    context.Context // ends when the process does
	window context.Context // ends earlier, with the budget: nothing new is sent then
	send   context.Context // ends later: what is in flight may be answered until then
	wrapUp context.Context // ends last: what was answered, or cut off, may be settled until then
	close  func()

	left     int // requests of the budget; -1 for no limit
	pace     *pace
	largest  int // the bytes of the largest body of the last ones
	ahead    int // how many the source was last asked for
	breaker  *gobreaker.TwoStepCircuitBreaker[any]
	waits    int             // pauses in a row without a good answer between them
	answers  bool            // the last of them although the primary answered, so that its probe tells nothing
	suspects []result        // they have paused twice, alone; the next request will tell whose fault that is
	held     []result        // no queue would have them
	news     int             // of these, that were not known to be refused
	fresh    int             // of these, since the source was last asked for
	away     map[string]bool // the ids of what was moved to a retry queue, and has not come again
	empty    bool            // nothing was left on the queue, and nothing has been given back since
	report   Report

	overfull bool // there were too many of them
}

// errExcluded tells the breaker of what says nothing about the primary's health.
var errExcluded = errors.New("excluded")

// failuresInRow is how many requests in a row may fail before it is the primary's fault and not theirs.
const failuresInRow = 5

// mostSuspects is how many requests may pause in a row, alone, before it is the primary's fault.
const mostSuspects = 5

// longestInHand bounds how long a request is kept in hand. RabbitMQ closes the channel of a consumer that keeps one for half
// an hour (consumer_timeout).
const longestInHand = 5 * time.Minute

// pausesAlone is how often a request may pause, alone, before it steps aside for others that may wait.
const pausesAlone = 5

// mostAway bounds how many of the requests that were moved to a retry queue are remembered.
const mostAway = 1 << 14

func newRun(d *Drainer, ctx, window context.Context, requests int) *run {
	r := &run{Drainer: d, ctx: ctx, window: window, left: -1, pace: newPace(d.options.Concurrency), away: map[string]bool{}}
	if requests > 0 {
		r.left = requests
	}
	send, cut := context.WithCancel(context.WithoutCancel(ctx))
	wrapUp, end := context.WithCancel(context.WithoutCancel(ctx))
	forget := context.AfterFunc(ctx, func() {
		time.AfterFunc(lastAnswers, cut)
		time.AfterFunc(lastAnswers+settling, end)
	})
	r.send, r.wrapUp, r.close = send, wrapUp, func() { forget(); cut(); end() }
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
	r.report.Retrying = len(r.away)
	if r.empty {
		return
	}
	r.letGo()
	patience := moveTimeout
	if r.ctx.Err() != nil {
		patience = 500 * time.Millisecond // the process is to end
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), patience)
	defer cancel()
	r.report.Waiting = -1
	if left, err := r.source.Left(ctx, math.MaxInt); err == nil {
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
	r.suspects, r.held, r.news, r.fresh = nil, nil, 0, 0
}

const (
	// shortestWait doubles up to longestWait, or, while the primary is down, to longestDown: the probe costs it little, and one
	// that comes and goes is found whenever it is there for two seconds.
	shortestWait, longestWait, longestDown = 200 * time.Millisecond, 5 * time.Second, 2 * time.Second
	// soonAfterProbe bounds the doubling of waits while the probe says that the primary is alive.
	soonAfterProbe = 3
)

// heed notes for how long the primary asks to be left alone.
func (r *run) heed(asked time.Duration) {
	if asked > 0 {
		r.notBefore = time.Now().Add(asked + rand.N(shortestWait/4)) // workers that were told the same do not come at once
	}
}

// wait sleeps before the next probe: longer each time, up to longest, and no shorter than the primary has asked for.
func (r *run) wait(longest, asked time.Duration) {
	d := min(shortestWait<<min(r.waits, 10), longest)
	d = d/2 + rand.N(d/2)
	r.waits++
	r.heed(asked)
	d = max(d, time.Until(r.notBefore))
	if r.keptFor()+d > longestInHand {
		r.letGo()
	}
	r.sleep(d)
}

// sleep ends with the window, at the latest. Meanwhile Ready may ask the source.
func (r *run) sleep(d time.Duration) {
	r.using.Unlock()
	defer r.using.Lock()
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
	lost   bool // the connection to the broker, or it does not answer: what was in hand may not be any more
}

// result is what became of one request in hand.
type result struct {
	delivery Delivery
	taken    time.Time
	outcome  Outcome // empty: it is still in hand, and is to be returned or, when no queue would have it, held
	key      string  // tells requests apart
	id       string  // that it is sent and moved with; the same as key, or one that it was given
	attempt  int
	alone    bool // nothing else could be in flight
	sent     bool
	tripped  bool // it has opened the breaker
	again    bool // it was held before, and has only been tried to be moved
	move     move // the last that was tried
	verdict  target.Verdict
	latency  time.Duration
	err      error
}

// move is where a request is to go, and which request that is: one that comes again after other attempts, or that an
// operator has redriven, is another.
type move struct {
	outcome    Outcome
	queue      string
	headers    map[string]any
	attempts   int
	redrivenAt time.Time
}

func (m move) isOf(d Delivery) bool {
	return m.attempts == d.Attempts() && m.redrivenAt.Equal(d.RedrivenAt())
}

// stuckAfter is how long nothing may come while something waits.
const stuckAfter = 10 * time.Second

// findings are the source's answers about what is ready on the queue, since something last came. A request may be under way,
// and the answer behind it: what follows from them holds when nothing comes for a moment more.
type findings struct {
	since time.Time
	empty int  // how many in a row say that nothing is; the broker may have been about to send it at the first
	stuck bool // something has been for too long
}

// look asks the source, unless what it has said before decides: whether the consume ends, as it must with a pause, and when to
// look again.
func (r *run) look(found *findings, last time.Time) (ends bool, p *pause, next time.Duration) {
	if !found.since.Equal(last) {
		*found = findings{since: last}
	}
	switch {
	case found.empty == 2:
		return true, nil, 0
	case found.stuck:
		return true, &pause{reason: "requests wait on the queue, and none comes"}, 0
	}
	asked := time.Now()
	waiting, err := r.source.Waiting(r.window)
	switch {
	case err != nil && r.window.Err() == nil:
		return true, &pause{reason: err.Error(), lost: true}, 0
	case waiting == 0:
		found.empty++
		return false, nil, idle
	}
	found.empty, found.stuck = 0, asked.Sub(last) > stuckAfter
	return false, nil, stillIdle
}

// consume takes requests and settles them until the queue is empty or the run is over (nil), or it must pause. When it
// returns, nothing is in flight.
func (r *run) consume() (why *pause) {
	begin := time.Now()
	if p := r.take(); p != nil {
		return p
	}
	arrivals, lost, stop := r.feed()
	results := make(chan result)
	over, last := r.window.Done(), time.Now()
	lull := max(idle, last.Sub(begin)) // a delivery is under way for about half as long as it took to begin
	var found findings
	quiet := time.NewTicker(lull)
	defer quiet.Stop()
	var returning []result
	stopping := false
	halt := func(p *pause) {
		if stopping = true; p != nil && (why == nil || p.after > why.after) {
			why = p
		}
	}
	for inFlight := 0; !stopping || inFlight > 0; {
		var in <-chan Delivery
		if !stopping && inFlight < r.limit() && r.left != 0 && r.turn.has(r.limiter) {
			in = arrivals
		}
		select {
		case d := <-in:
			inFlight++
			r.left = max(r.left-1, -1)
			r.turn.use()
			last = time.Now()
			go func(alone bool) { results <- r.handle(d, alone) }(r.pace.limit == 1)
			if p := r.weigh(d.Size()); p != nil {
				halt(p)
			}
		case one := <-results:
			inFlight--
			last = time.Now()
			if !one.sent { // the rate is for what is replayed
				r.turn.come()
			}
			p := r.settle(one, &returning)
			if p == nil && r.keptFor() > longestInHand {
				p = &pause{reason: "what no queue would have goes back from time to time"}
			}
			if p != nil || r.left == 0 && inFlight == 0 {
				halt(p)
			}
		case <-r.turn.due:
			r.turn.come()
		case err := <-lost:
			lost = nil
			if stopping = true; why == nil {
				why = &pause{reason: err.Error()}
			}
			why.lost = true
		case <-quiet.C:
			if inFlight > 0 || stopping || in == nil || time.Since(last) < lull || r.source.Quiet() < min(lull, stillIdle) {
				continue
			}
			ends, p, next := r.look(&found, last)
			if ends {
				halt(p)
			}
			quiet.Reset(max(next, lull))
		case <-over:
			stopping, over = true, nil
		}
	}
	stop()
	if err := r.source.Stop(r.wrapUp); err != nil && why == nil { // before anything goes back: it would come again at once
		why = &pause{reason: err.Error(), lost: true}
	}
	r.conclude(returning, why)
	return why
}

// turn is the leave to take one more request, by the rate. What is not used is for the next consume, or the next run: at
// few a minute, it would be long until another.
type turn struct {
	granted bool
	due     <-chan time.Time
}

// has says whether one may be taken now, and sees to it that due says when, if not.
func (t *turn) has(limiter *rate.Limiter) bool {
	if !t.granted && t.due == nil {
		delay := limiter.Reserve().Delay()
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
	out := result{delivery: d, taken: time.Now(), attempt: d.Attempts() + 1, alone: alone}
	request, err := d.Request()
	if err != nil {
		return r.park(out, "the message cannot be read: "+err.Error())
	}
	if out.key = request.ID; out.key == "" { // another program's: given back, it is known by what it says only
		says := fmt.Appendf(nil, "%s %s\n%s", request.Method, request.Target, request.Body)
		out.key, request.ID = fmt.Sprintf("%x", sha256.Sum256(says)), d.Identify()
	}
	out.id = request.ID
	if r.isStale(d, request) {
		switch r.options.Stale {
		case StalePark:
			return r.park(out, fmt.Sprintf("older than %s", r.options.MaxAge))
		case StaleDrop:
			out.outcome, out.err = Expired, d.Done()
			return out
		}
	}
	if known, ok := r.refused.get(out.key); ok && known.isOf(d) { // the primary has answered it: it is not asked again
		out.again = true
		return r.move(out, known.outcome, known.queue, known.headers)
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

// isStale goes by when the request came, or by when an operator wanted it to be sent after all.
func (r *run) isStale(d Delivery, request *envelope.Request) bool {
	since := request.ReceivedAt
	if at := d.RedrivenAt(); at.After(since) {
		since = at
	}
	return r.options.MaxAge > 0 && !since.IsZero() && time.Since(since) > r.options.MaxAge
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
	ctx, cancel := context.WithTimeout(r.wrapUp, moveTimeout)
	defer cancel()
	if err := out.delivery.Move(ctx, queue, headers); err != nil {
		out.err = fmt.Errorf("queue %s: %w", queue, err)
		out.outcome = Held
		out.move = move{outcome, queue, headers, out.delivery.Attempts(), out.delivery.RedrivenAt()}
		return out
	}
	out.outcome = outcome
	return out
}

// settle draws the conclusions from one result, and says when the run must pause.
func (r *run) settle(one result, returning *[]result) *pause {
	delete(r.away, one.id)
	if one.outcome == "" {
		*returning = append(*returning, one)
		r.answers = one.verdict.Status != 0
		return &pause{after: one.verdict.After, reason: one.verdict.Reason}
	}
	r.paused.delete(one.key)
	if one.outcome != Held {
		r.refused.delete(one.key)
	}
	r.track(one)
	if one.sent && one.verdict.Status != 0 { // a time-out is no answer
		r.answered++
		if p := r.blame(); p != nil {
			return p
		}
	}
	return r.book(one)
}

// track remembers who is on a retry queue.
func (r *run) track(one result) {
	if one.outcome == Retried && one.err == nil && len(r.away) < mostAway {
		r.away[one.id] = true
	}
}

// blame is for when the primary has answered another request: then it was the suspects' own fault that they have paused.
func (r *run) blame() (p *pause) {
	guilty := r.suspects
	r.suspects = nil
	for _, one := range guilty {
		one = r.retry(one)
		r.paused.delete(one.key)
		r.track(one)
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
	if r.pace.answered(one.latency, r.turn.due == nil) { // else more at the same time would wait for the rate only
		return r.take()
	}
	return nil
}

// hold keeps a request in hand that no queue would have, and says when the run must pause for it.
func (r *run) hold(one result) *pause {
	r.keep(one)
	switch {
	case r.news >= mostHeld, len(r.held) >= mostRecent, r.kept() >= mostBytes:
		r.overfull = true
		return &pause{reason: one.err.Error()}
	case r.fresh >= r.ahead: // else the source would wait for these to be settled
		return r.take()
	}
	return nil
}

// keep is for a request that would come again at once, were it given back.
func (r *run) keep(one result) {
	if !one.again {
		r.options.Log.Error("a request stays where it is", "id", one.key, "error", one.err)
		r.news++
	}
	if one.key != "" {
		r.refused.set(one.key, one.move)
	}
	r.report.Trouble = one.err.Error()
	r.held = append(r.held, one)
	r.fresh++
}

// limit is how many may be in flight: as the pace has it, if there is room for so many.
func (r *run) limit() int { return max(min(r.pace.limit, r.room()), 1) }

// room is for how many there is, if all are as large as the largest of the last ones.
func (r *run) room() int { return (mostBytes - r.kept()) / max(r.largest, 1) }

// kept is the bytes that are in hand from one consume to the next.
func (r *run) kept() (bytes int) {
	for _, one := range slices.Concat(r.suspects, r.held) {
		bytes += one.delivery.Size()
	}
	return bytes
}

// keptFor is for how long the first of them has been in hand; 0 if there are none.
func (r *run) keptFor() (longest time.Duration) {
	for _, one := range slices.Concat(r.suspects, r.held) {
		longest = max(longest, time.Since(one.taken))
	}
	return longest
}

// weigh notes the size of a request, and asks for fewer as soon as they are too large, or for more when there is room for
// twice as many, so that sizes which vary do not make it ask all the time. What was large is forgotten slowly.
func (r *run) weigh(size int) *pause {
	r.largest = max(size, r.largest-r.largest/32)
	if now := r.limit(); now < r.ahead || now > r.ahead && r.room() >= 2*r.ahead {
		return r.take()
	}
	return nil
}

// take asks the source for as many as may be in flight now. What is in hand already comes on top, so that for a moment
// after a change there may be up to twice as many in hand; no more are sent.
func (r *run) take() *pause {
	r.fresh, r.ahead = 0, r.limit()
	if err := r.source.Take(r.wrapUp, r.ahead); err != nil {
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
	if why == nil && len(returning) == 0 {
		return // the queue is empty, or the run over: what is kept goes back in the end
	}
	// When the broker does not answer, all goes back: it may be that only what was asked is lost, and not what is in hand.
	lost := why != nil && why.lost
	if !lost {
		r.pace.pause()
		if len(returning) == 1 && r.suspicious(returning[0], why) {
			return
		}
	}
	r.letGo()
	for _, one := range returning {
		r.giveBack(one)
	}
}

// pauses are those of one request, since it was last answered otherwise.
type pauses struct {
	times    int  // that it was alone
	answered int  // of the Drainer, at the last of them
	ownWait  bool // the waits that the primary asks for are for this request, and not for all
}

// suspicious counts a pause, and says whether the request is settled or kept for it.
func (r *run) suspicious(one result, why *pause) bool {
	if !one.sent || r.send.Err() != nil { // we have cut it off
		return false
	}
	now, _ := r.paused.get(one.key)
	long, others := r.isLong(one.verdict.After), r.answered > now.answered
	if now.ownWait = now.ownWait || long && now.times > 0 && others; long && now.ownWait {
		now.answered = r.answered
		r.paused.set(one.key, now)
		why.after = 0
		r.ownWait(one, others)
		return true
	}
	if !one.alone {
		return false
	}
	now.times, now.answered = now.times+1, r.answered
	r.paused.set(one.key, now)
	if (long || now.times > pausesAlone) && len(r.options.Retries) > 0 && r.aside(one, r.options.Retries[0]).outcome != Held {
		r.count(Returned)
		now.times = 1 // when it comes again, one more makes it a suspect
		r.paused.set(one.key, now)
		return true
	}
	if now.times > 1 && !long && len(r.suspects) < mostSuspects && r.kept() < mostBytes {
		r.suspects = append(r.suspects, one)
		return true
	}
	return false
}

// ownWait is for a request at which the primary asks for a long wait that is not for all. When others have been answered
// since the last time, it is retried; else it steps aside, for as long as one can, and without an attempt.
func (r *run) ownWait(one result, others bool) {
	out, became := one, Returned
	if last := len(r.options.Retries) - 1; others || last < 0 {
		out = r.retry(one)
		r.track(out)
		became = out.outcome
	} else if out = r.aside(one, r.options.Retries[last]); out.outcome == Held {
		became = Held
	}
	r.count(became)
	if became == Held {
		r.keep(out)
	}
}

// isLong says that no other request is sent soon: after the wait that the primary asks for, the run is over, or the request
// has been in hand for too long.
func (r *run) isLong(wait time.Duration) bool {
	end, bounded := r.window.Deadline()
	return wait > longestInHand || r.left == 0 || wait > 0 && bounded && time.Until(end) <= wait
}

// aside moves a request to a retry queue, and counts no attempt. Given back, it would be the first of the queue again, and
// when each run sends but this one, or the first ones all pause, they stall the rest for ever.
func (r *run) aside(one result, queue string) result {
	out := r.move(one, Retried, queue, map[string]any{HeaderAttempt: int64(one.attempt - 1)})
	r.track(out)
	return out
}

func (r *run) giveBack(one result) {
	if one.delivery.Return() == nil {
		r.count(Returned)
	}
}
