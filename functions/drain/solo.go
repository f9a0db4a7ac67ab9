package drain

import "time"

// A request may end the worker that replays it: by an answer that takes all memory, or by what we do wrong. RabbitMQ
// counts how often a message came back without having been settled, but for all that were with us, and on 4.0 and 3.10
// also for what we requeued. So one that came back often is told apart first: it is set aside with a mark, and comes
// with a count of its own. Then it is replayed while nothing else is with us. When it comes back from that, the
// attempt is counted before it is sent again; so it is parked in the end, and its neighbours are not.

const (
	// mostReturns is how many returns make a message suspect.
	mostReturns = 3
	// After mostSolos such replays that went well, a message that came back often is taken for the broker's way to
	// count what was requeued, and no more are replayed alone.
	mostSolos = 3
)

// isSuspect rules on a message that has come back too often.
func (r *run) isSuspect(it *item) (ruling, bool) {
	switch {
	case it.alone && it.returns > 0 && (!r.met || r.endsWorkers(it)): // else it may be for what we requeued
		return ruling{item: it, fate: retry, reason: "the drain ended while it was replayed alone"}, true
	case !it.alone && r.endsWorkers(it):
		it.alone = true
		return ruling{item: it, fate: aside}, true
	}
	return ruling{}, false
}

// endsWorkers says that a message came back too often. This process goes on; so what it may have returned itself, once
// each time that it began to take, says nothing.
func (r *run) endsWorkers(it *item) bool {
	return it.returns-max(r.takes-1, 0) >= mostReturns && r.solos < mostSolos
}

// sendSolo sends the request that is to be alone, when it is, and says when to try again if nothing happens.
func (r *run) sendSolo(now time.Time) (next time.Time) {
	if r.working()+len(r.held) > 0 || r.feeder.cancel != nil {
		return r.never
	}
	if at := r.maySend(now); at.After(now) {
		return at
	}
	r.launch(r.solo, now)
	return r.never
}
