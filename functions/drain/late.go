package drain

import (
	"time"

	"fallback/functions/target"
)

// markOverdue marks those that are in flight for too long, and gives up those whose time has been over for a second.
// While others are accepted, or on trial, those that are overdue do not count among those in flight.
func (r *run) markOverdue(now time.Time) {
	for _, it := range r.flying {
		age := now.Sub(it.sent)
		if now.After(r.endless(it)) {
			r.answer(answer{item: it, verdict: target.Verdict{Action: target.Fail, Reason: "the replay has no end"}},
				now)
			return // the next in the next round
		}
		if age < r.overdueAfter() || r.judge.overdue >= r.options.Concurrency {
			return // they are in the order in which they were sent
		}
		if !it.overdue && (r.judge.outage.trial || r.judge.accepted.othersSince(it.group, it.sent)) {
			r.judge.markOverdue(it)
		}
	}
}

// overdueAfter is how long one is in flight before it is overdue.
func (r *run) overdueAfter() time.Duration { return max(tooLong, 4*r.pace.usual) }

// endless is when a replay should have ended by itself; never, where its time has no bound.
func (r *run) endless(it *item) time.Time {
	if r.options.Timeout <= 0 {
		return r.never
	}
	return it.sent.Add(r.options.Timeout + wrapUpTime)
}

// oldestSent is when the oldest of those in flight was sent that are not overdue; now, if there is none.
func (r *run) oldestSent(now time.Time) time.Time {
	for _, it := range r.flying {
		if !it.overdue {
			return it.sent
		}
	}
	return now
}
