package drain

import (
	"context"
	"time"
)

// run is one call of Once: requests arrive from the feeder, go out to be replayed, come back to be judged, and go out
// to be settled. The loop does no I/O. What others do for it, in goroutines, comes back as events; they use options,
// source, target and limits, and the rest is the loop's own.
type run struct {
	*Drainer
	limits

	events chan func(now time.Time) // what others have come to, for the loop to do

	// The loop's.
	feeder   feeder
	flying   []*item // sent, and not answered; in that order
	kept     []*item // not sent: their turn comes soon
	held     []*item // could not be moved
	solo     *item   // is replayed while nothing else is with us
	settling int     // in goroutines
	knocking bool    // a knock is under way
	pace     *pace
	largest  int    // bytes of the largest of the last requests
	unspent  int    // of the budget of requests; -1 for no limit
	careful  int    // so many are to be settled one at a time: after a loss of the source, for example
	unsent   int    // arrivals that were not to be sent, since one that was
	moved    int    // to other queues
	unmoved  int    // that these did not take
	end      string // why nothing more is sent
	never    time.Time
	books    books
}

// limits are how long a run may do what: send, hear, settle.
type limits struct {
	window context.Context // ends with the budget: no more are sent then
	send   context.Context // ends later: what is in flight may be answered until then
	wrapUp context.Context // ends last: what was ruled may be settled until then
	ended  chan struct{}   // closed when nobody listens any more
}

// empty is why a run ends that has nothing more to do.
const empty = "the queue is empty"

// loop returns when nothing is with us any more, or the time to wrap up is over.
func (r *run) loop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var due time.Time // of the timer
	over := r.window.Done()
	for {
		now := time.Now()
		r.markOverdue(now)
		r.rule(r.judge.tick(r.isDry(), now)...)
		r.sendKept(now)
		if r.judge.search.wanted {
			r.feeder.toCount.Store(true)
		}
		r.requeueHeld(now)
		if r.unspent == 0 && len(r.flying) == 0 {
			r.stop("the budget of requests is used up")
		}
		r.occupied.Store(r.busy())
		if r.isOver() {
			return
		}
		arrivals, next := r.steer(now)
		if !next.Equal(due) {
			due = next
			timer.Reset(due.Sub(now))
		}
		select {
		case it := <-arrivals:
			r.arrive(it, time.Now())
		case event := <-r.events:
			event(time.Now())
		case <-timer.C:
			due = time.Time{}
		case <-over:
			over = nil
			r.stop(r.whyOver())
		case <-r.wrapUp.Done():
			return
		}
	}
}

// post makes the loop do what a goroutine has come to, unless it has ended.
func (r *run) post(event func(now time.Time)) {
	select {
	case r.events <- event:
	case <-r.ended:
	}
}

// stop sends nothing more.
func (r *run) stop(why string) {
	if r.end == "" {
		r.end = why
	}
}

// busy says that something is with us, idle that nothing is but what has been in flight for too long.
func (r *run) busy() bool { return r.working() > 0 || r.solo != nil }
func (r *run) idle() bool { return r.working() == r.judge.overdue && r.solo == nil }

// walks says that more are set aside before the next trial. To stop taking for each would requeue those behind it each
// time, which RabbitMQ before 4.3 counts.
func (r *run) walks() bool { return r.judge.outage.trial && r.judge.outage.walk.skip > 0 }

// isDry says that nothing more comes: the queue is empty, and nothing is with us but what is suspended.
func (r *run) isDry() bool { return !r.feeder.dry.IsZero() && len(r.flying)+len(r.kept) == 0 }

// working is how many are with us, but for those that no queue takes.
func (r *run) working() int { return len(r.flying) + len(r.kept) + len(r.judge.suspended) + r.settling }

// isOver says that nothing is with us, and nothing more to come. Where the queue is empty, it notes that as the end.
func (r *run) isOver() bool {
	if r.feeder.isTaking() || r.knocking || r.busy() {
		return false
	}
	if !r.feeder.dry.IsZero() {
		r.stop(empty)
	}
	return r.end != "" && len(r.held) == 0
}

// steer sees to it that requests are taken, or the primary probed, when it is time for that. It says whether one may
// be taken now, and when to look again if nothing happens.
func (r *run) steer(now time.Time) (arrivals chan *item, next time.Time) {
	o, f := &r.judge.outage, &r.feeder
	switch {
	case r.end != "":
		f.stop()
		r.giveUp()
		return nil, r.next(r.never, now)
	case o.closed():
		f.stop()
		r.requeueKept()
		due := later(o.next, f.next)
		if !f.isTaking() && !r.knocking && !due.After(now) {
			r.knocking = true
			probe := len(r.judge.suspended) > 0
			go func() {
				k := r.knock(probe)
				r.post(func(now time.Time) { r.knocked(k, now) })
			}()
		}
		if r.knocking || f.isTaking() {
			due = r.never
		}
		return nil, r.next(due, now)
	case r.solo != nil:
		f.stop()
		r.requeueKept()
		r.requeueAllHeld()
		return nil, r.next(r.sendSolo(now), now)
	case !f.isTaking() && (r.detour.on || r.careful > 0) && !r.idle():
		return nil, r.next(r.never, now) // one after the other
	case f.isTaking() && !r.detour.on && (r.want() < f.prefetch && !r.walks() || r.want() >= 2*f.prefetch):
		f.stop() // to begin again with another prefetch; a little more is not worth that
	case !f.isTaking() && !f.dry.IsZero() && r.busy() && now.Sub(f.dry) < dryFor:
		return nil, r.next(f.dry.Add(dryFor), now)
	case !f.isTaking() && f.next.After(now):
		return nil, r.next(f.next, now)
	case !f.isTaking() && r.detour.on:
		f.startPast(r)
	case !f.isTaking():
		f.start(r, r.want())
	}
	if at := r.mayTake(now); at.After(now) {
		return nil, r.next(at, now)
	}
	if f.isTaking() && f.unacked >= f.prefetch && r.settling == 0 { // all that it may take stays with us
		f.stop()
	}
	return f.arrivals, r.next(r.never, now)
}
