package drain

import (
	"time"

	"golang.org/x/time/rate"
)

const (
	// lookahead is how many requests may be with us beside those in flight: behind those of one group are those of
	// others.
	lookahead = 32
	// mostKept bounds those of one group that are kept for their turn while others do well.
	mostKept = 16
	// tooLong is how long a request is in flight before others may go in its place.
	tooLong = time.Second
)

// maySend is when one more request may be sent: by the rate, and by the spacing that the primary has asked for. It is
// never while an outage, the budget or the places in flight forbid it.
func (r *run) maySend(now time.Time) time.Time {
	return later(r.mayBegin(now), r.judge.all.next(now))
}

// mayBegin is maySend without the spacing.
func (r *run) mayBegin(now time.Time) time.Time {
	places := max(min(r.pace.limit, r.room()), 1)
	if r.judge.outage.trial {
		places = 1
	}
	if r.unspent == 0 || r.end != "" || r.judge.outage.closed() ||
		len(r.flying)-r.judge.overdue >= places {
		return r.never
	}
	return r.permit.at(r.limiter, now)
}

// mayTake is when one more may be taken.
func (r *run) mayTake(now time.Time) time.Time {
	if len(r.kept)+len(r.judge.suspended) >= lookahead || r.settling >= r.options.Concurrency+lookahead {
		return r.never
	}
	if r.judge.search.on { // those that wait for the spacing are set aside
		return r.mayBegin(now)
	}
	return r.maySend(now)
}

// next is when the loop must look again, if no event comes before.
func (r *run) next(at, now time.Time) time.Time {
	sooner := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	may := r.maySend(now)
	for _, it := range r.kept {
		sooner(later(it.turn, may))
		sooner(it.taken.Add(longestUnacked + time.Millisecond))
	}
	if len(r.held) > 0 {
		sooner(r.held[0].taken.Add(longestUnacked + time.Millisecond))
	}
	for _, it := range r.judge.suspended {
		sooner(it.heard.Add(longestSuspension(it, r.isDry())))
	}
	if len(r.flying) > 0 {
		sooner(r.endless(r.flying[0]))
	}
	for _, it := range r.flying {
		if due := it.sent.Add(r.overdueAfter()); !it.overdue && due.After(now) {
			sooner(due)
			break
		}
	}
	if at.Sub(now) < time.Millisecond {
		return now.Add(time.Millisecond)
	}
	return at
}

// room is how many bodies fit beside those that wait with us, those in flight among them, if all are as large as the
// largest of the last ones.
func (r *run) room() int {
	bytes := 0
	for _, some := range [][]*item{r.kept, r.held, r.judge.suspended} {
		for _, it := range some {
			bytes += it.size
		}
	}
	return (MostBytes - bytes) / max(r.largest, 1)
}

// want is the prefetch: how many may be unacked.
func (r *run) want() int {
	n := r.options.Concurrency + lookahead
	switch {
	case r.careful > 0:
		n = 1
	case r.judge.outage.trial:
		// what is not sent needs no trial: where much of it waits, more are taken at a time
		n = 1 + r.judge.overdue + min(max(r.judge.outage.walk.skip, r.unsent), lookahead)
		if r.judge.outage.opening && len(r.kept) > 0 {
			n += lookahead
		}
	case r.options.Rate > 0: // what would wait for longer than a minute is left to other workers
		n = min(n, max(int(r.options.Rate*60), 1))
	}
	return max(min(n, r.room()), 1) + len(r.held) // which stay unacked
}

// permit is one token of the limiter, reserved. What is not used is kept for the next run: at few a minute, it would
// be long until another.
type permit struct{ due time.Time }

// at is when it holds.
func (p *permit) at(limiter *rate.Limiter, now time.Time) time.Time {
	if p.due.IsZero() {
		p.due = now.Add(limiter.ReserveN(now, 1).DelayFrom(now))
	}
	return p.due
}

func (p *permit) waits(now time.Time) bool { return p.due.After(now) }
func (p *permit) use()                     { p.due = time.Time{} }
