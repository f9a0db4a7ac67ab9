package drain

import (
	"errors"
	"time"
)

// fed is for a feeder that has ended.
func (r *run) fed(e feedEnd, now time.Time) {
	handOver := errors.Is(e.err, ErrHandOver)
	if handOver {
		r.handOver(e, now)
	} else if e.passed != nil && (e.err == nil || errors.Is(e.err, ErrDry)) {
		r.handedOver(now)
	}
	if handOver && e.passed != nil {
		e.err = nil
	}
	if r.feeder.prefetch > 1 { // what was on its way to us went back
		r.requeued()
	}
	if !r.feeder.ended(e.err, now) || r.window.Err() != nil {
		return
	}
	if !handOver { // else it was reached
		r.reached(e.err)
	}
	r.books.note("the queue cannot be read", e.err.Error())
	r.lose()
	if handOver && e.passed == nil { // it may be any that the broker was sending us, whether it has arrived or not
		r.careful = max(r.careful, r.feeder.prefetch+1)
	}
	r.judge.outage.open(now)
}

// knocked is for what the queue and the primary say.
func (r *run) knocked(k knock, now time.Time) {
	r.knocking = false
	if r.window.Err() != nil {
		return
	}
	r.reached(k.err)
	switch {
	case k.err != nil:
		r.feeder.lose(now)
		r.books.note("cannot look at the queue", k.err.Error())
	case !k.asked:
		r.feeder.dry = now
		r.handedOver(now)
		if r.busy() {
			r.judge.outage.next = now.Add(longestProbing)
		}
	case r.detour.rests(k.waiting, now):
		r.stop(stranded)
	default:
		if k.verdict.Loop {
			r.heard(k.verdict)
		}
		if !k.alive {
			r.books.note("the primary is down", k.verdict.Reason)
			r.troubles.set(PrimaryAway, true, k.verdict.Reason)
		}
		r.rule(r.judge.probed(k.alive, now)...)
		r.judge.outage.walk.bound(k.waiting, now)
	}
}

// settled is for a request that is not with us any more, unless no queue takes it.
func (r *run) settled(s settled, now time.Time) {
	r.settling--
	if s.outcome != Held {
		r.feeder.settled(s.item)
	}
	switch {
	case errors.Is(s.err, ErrLost): // it comes again
		if s.fate != requeue {
			r.remembered.note(s)
			r.books.note("what was done with a request is not known to the broker", s.err.Error())
		}
		r.unlinked(s.item)
		return
	case s.outcome == Held:
		r.remembered.note(s)
		s.item.size = 0 // its body was dropped
		r.held = append(r.held, s.item)
		if s.sent.IsZero() {
			r.judge.outage.walk.end(now)
		}
		if len(r.held) >= mostHeld {
			r.stop("too many requests that no queue takes")
		}
	case s.outcome == Returned:
		r.requeued()
		r.feeder.dry = time.Time{}
	default:
		if s.outcome == Delivered && s.err == nil {
			r.remembered.acked(s.ruling, now)
		}
		r.careful = max(r.careful-1, 0)
		r.detour.settled()
	}
	switch {
	case s.err != nil:
		r.unmoved++
		r.troubles.set(NoRoom, true, s.err.Error())
	case s.outcome == Retried, s.outcome == Aside, s.outcome == Parked:
		r.moved++
	}
	r.books.settled(s)
}
