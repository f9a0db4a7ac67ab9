package drain

import (
	"time"

	"fallback/functions/target"
)

// A refusal is suspended, and a pause in an outage that has not been probed: what comes next tells whose fault it is.

// longestSuspended is how long a refusal waits for what tells whose it is, shortestSuspended where nothing more is on
// the queue that could.
const longestSuspended, shortestSuspended = 2 * time.Second, time.Second

// doubt marks a refusal that may be an outage's: the request was answered badly before and nothing was accepted since,
// or another refused one is suspended.
func (j *judge) doubt(it *item) {
	if j.known(it) {
		return
	}
	it.doubtful = !it.badAt.IsZero()
	for _, other := range j.suspended {
		if !isPause(other) {
			it.doubtful, other.doubtful = true, other.doubtful || !j.known(other)
		}
	}
}

// clearedBy is for an accepted request: the way was open when it was sent. Refusals of its group that were heard before
// are the requests' own fault; several mean that the way was closed for a time.
func (j *judge) clearedBy(it *item) {
	t := j.groups.of(it.group)
	for _, other := range j.suspended {
		same := other.group == it.group
		if j.refusals > 1 || same && t != nil && t.refusals > 1 {
			other.doubtful = true
		}
		if other.verdict.Loop { // a 508 may be the request's own fault; a door that takes it never is
			same = other.verdict.Status == 508
		}
		if same && !isPause(other) && other.cleared.IsZero() && it.sent.After(other.heard) {
			other.cleared = it.sent
		}
	}
}

// ruleCleared rules on refusals as soon as all is answered that was sent before their way was clear: another refusal
// among that shows that it was closed for a time. One that was answered badly before waits for none of that.
func (j *judge) ruleCleared(oldest time.Time) []ruling {
	over := func(it *item) bool {
		return !it.cleared.IsZero() && (!it.badAt.IsZero() || !oldest.Before(it.cleared))
	}
	return append(
		j.release(func(it *item) bool { return over(it) && it.doubtful }, retry),
		j.release(over, park)...,
	)
}

// requeueSuspended ends the suspension of some: they are requeued, unless they wait as they were asked to, which the
// queue would forget.
func (j *judge) requeueSuspended(which func(*item) bool) []ruling {
	asked := j.release(func(it *item) bool { return which(it) && namesATime(it) }, aside)
	return append(asked, j.release(which, requeue)...)
}

// tick rules on those that have been suspended for long enough. dry says that nothing more is on the queue.
func (j *judge) tick(dry bool, now time.Time) []ruling {
	over := func(it *item) bool { return now.Sub(it.heard) >= longestSuspension(it, dry) }
	return append(
		j.release(func(it *item) bool { return !isPause(it) && over(it) }, retry),
		j.requeueSuspended(over)...,
	)
}

// longestSuspension is how long one waits for what tells whose its answer is.
func longestSuspension(it *item, dry bool) time.Duration {
	switch {
	case isPause(it):
		return longestUnacked
	case dry:
		return shortestSuspended
	}
	return longestSuspended
}

func namesATime(it *item) bool { return isPause(it) && it.verdict.After > 0 }

func isPause(it *item) bool { return it.verdict.Action == target.Pause }

// release ends the suspension of some.
func (j *judge) release(which func(*item) bool, f fate) (rulings []ruling) {
	kept := j.suspended[:0]
	for _, it := range j.suspended {
		switch {
		case !which(it):
			kept = append(kept, it)
		case it.verdict.Loop && f == retry && !(it.verdict.Status == 508 && j.known(it)): // no matter of the request
			rulings = append(rulings, ruling{item: it, fate: aside})
		default:
			rulings = append(rulings, ruling{item: it, fate: f})
		}
	}
	clear(j.suspended[len(kept):])
	j.suspended = kept
	return rulings
}
