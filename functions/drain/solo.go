package drain

import "time"

// A request may end the worker that replays it: by an answer that takes all memory, or by a bug of ours. RabbitMQ
// counts how often a message came back unsettled, but it counts all that were with us; before 4.3, also what we
// requeued. So the one is told from its neighbours in steps. From 4.3 on, while messages come that came back before
// this process began, one is taken at a time, so that only its own count rises from then on. (Before 4.3, that would
// requeue the others each time, and change the order.) One that came back often is set aside with a mark; it has a
// count of its own from then on, and is replayed while nothing else is with us. If it comes back from that, the attempt
// is counted before it is sent again. So it is parked in the end, and its neighbours are not, nor what waits while
// workers end for another reason.

const (
	// mostReturns is how many returns make a message suspect.
	mostReturns = 3
	// soloReturns is how many count as an attempt of one that is to be replayed alone. It may have been beside others
	// once, on its way to a worker that ended.
	soloReturns = 2
	// After mostSolos such replays that went well, a message that came back often is taken for the broker's way to
	// count what was requeued, and no more are replayed alone.
	mostSolos = 3
)

// returns is how often a message came back for what others did, or the process before. This one goes on; so what it may
// have given back itself says nothing.
func (r *run) returns(it *item) int { return max(it.returns-r.returned, 0) }

// requeued is for what this process has given back: the count of that may rise.
func (r *run) requeued() {
	if r.source.CountsRequeues() {
		r.returned++
	}
}

// beware makes the run take one at a time, the next one too, for a message that came back. It rests after as many as a
// worker that ended may have had with it.
func (r *run) beware(it *item) {
	if !r.source.CountsRequeues() && r.returns(it) > 0 && r.wary < r.options.Concurrency+lookahead {
		r.wary++
		r.careful = max(r.careful, 2)
	}
}

// ruleSuspect rules on a message that has come back too often.
func (r *run) ruleSuspect(it *item) (ruling, bool) {
	tooOften := r.returns(it) >= mostReturns && r.solos < mostSolos
	switch {
	case it.alone && (tooOften || !r.met && r.returns(it) >= soloReturns): // else it may be for what we requeued
		return ruling{item: it, fate: retry, reason: "the drain ended while it was replayed alone"}, true
	case !it.alone && tooOften:
		it.alone = true
		return ruling{item: it, fate: aside}, true
	}
	return ruling{}, false
}

// sendSolo sends the request that is to be alone, when it is, and says when to try again if nothing happens.
func (r *run) sendSolo(now time.Time) (next time.Time) {
	if r.working()+len(r.held) > 0 || r.feeder.isTaking() {
		return r.never
	}
	if at := r.maySend(now); at.After(now) {
		return at
	}
	r.launch(r.solo, now)
	return r.never
}
