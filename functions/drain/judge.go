package drain

import (
	"net/http"
	"time"

	"fallback/functions/backoff"
	"fallback/functions/target"
)

// judge decides whose fault a bad answer is: the request's own, its group's, or everybody's. It goes by evidence, and
// not by the order in which answers come: a bad answer is everybody's while nothing does well, and the request's own
// or its group's as soon as others do. It does no I/O, knows no clock and holds no lock: the loop calls it, and hands
// it the time.
//
// Words. An answer is good when the primary took the request, and any other is bad; but rejections are counted apart,
// in rejected, as long as they are the requests' own. It asks when it names a time to wait, or is a 429. A request is
// known when it was answered badly before, and anything was accepted since. The streak is the number of bad answers
// since the last good one: of requests that are not known, and that were sent after it or did not reach the primary.
type judge struct {
	groups groups
	outage outage
	search search
	all    spacing // between any two requests
	ofOne  bool    // as far as is known, only one group was asked to wait
	jitter backoff.Jitter

	accepted  accepted
	streak    int     // see above
	refusals  int     // since the last good answer
	rejected  int     // since the last good answer
	overdue   int     // in flight for too long
	suspended []*item // answered; what comes next tells what is to become of them
}

const (
	// longestStreak is how many bad answers in a row are everybody's.
	longestStreak = 5
	// mostRejected is how many rejections in a row are the requests' own. After that, it is more likely that the way
	// is wrong.
	mostRejected = 20
	// After often asides in a row, while others do well, the next is for a minute, after veryOften for ten.
	often, veryOften = 8, 16
)

// fate is what is to become of a request.
type fate int

const (
	deliver fate = iota // the primary has it
	park                // to the parked queue
	retry               // to the retry queue of its attempt
	aside               // to a retry queue, without an attempt
	requeue             // back to where it was
	expire              // off the queue, unsent: it is too old
	uncopy              // off the queue: it is on another already
)

// ruling is the judge's word on a request.
type ruling struct {
	*item
	fate   fate
	wait   time.Duration // it is to be away for that long
	reason string        // for people; the verdict's, if it is empty
	copied Outcome       // of the copy, for uncopy
}

// hear takes an answer, and rules on its request and on others, or suspends it. oldest is when the oldest in flight
// was sent, overdue ones left out.
func (j *judge) hear(it *item, oldest, now time.Time) []ruling {
	return append(j.take(it, now), j.ruleCleared(oldest)...)
}

func (j *judge) take(it *item, now time.Time) []ruling {
	it.heard = now
	v := it.verdict
	switch {
	case v.Action == target.Done:
		return append(j.good(it, now), ruling{item: it, fate: deliver})
	case v.Action == target.Reject && v.Status == 0: // it was not sent, so it says nothing of anybody
		return []ruling{{item: it, fate: park}}
	case v.Action == target.Reject && it.conflicts < v.Again: // the first try may still be under way
		j.rejected++
		return []ruling{{item: it, fate: retry}}
	case v.Action == target.Reject && j.rejected < mostRejected:
		j.rejected++
		return []ruling{{item: it, fate: park}}
	case v.Action == target.Fail:
		j.groups.bad(it, 0, j.accepted.others(it.group, now), now)
		j.bad(it, now)
		return []ruling{{item: it, fate: retry}}
	case v.Action == target.Pause:
		return j.pause(it, now)
	default: // it may speak of the request, or of the way
		j.doubt(it)
		j.suspended = append(j.suspended, it)
		j.refusals++
		j.groups.refused(it, now)
		j.bad(it, now)
		return nil
	}
}

// good is for a request that was accepted.
func (j *judge) good(it *item, now time.Time) (rulings []ruling) {
	j.clearedBy(it)
	j.streak, j.rejected, j.refusals = 0, 0, 0
	if j.accepted.at = now; !j.groups.isLimited(it.group, now) {
		j.accepted.note(it.group, now)
	}
	j.all.accepted++
	if t := j.groups.of(it.group); j.ofOne && (t == nil || t.asked.IsZero()) {
		j.all.lift() // it is the other group's
	}
	j.groups.good(it.group)
	if j.outage.on && !it.sent.Before(j.outage.since) { // else it says nothing about what came after it
		rulings = append(rulings, j.release(isPause, aside)...)
		if !j.outage.opening {
			j.groups.clear()
		}
		j.outage = outage{}
	}
	return rulings
}

// pause is for an answer that says: not now.
func (j *judge) pause(it *item, now time.Time) []ruling {
	others, known := j.accepted.others(it.group, now), j.known(it)
	if wait := it.asked(); wait > 0 && !known {
		j.limit(it, wait, others, now)
	}
	j.groups.bad(it, it.asked(), others, now)
	j.bad(it, now)
	wait := it.verdict.After
	switch {
	case known && it.asked() == 0:
		return []ruling{{item: it, fate: retry}}
	case j.outage.on && !j.outage.probed:
		j.suspended = append(j.suspended, it)
		return nil
	case others && it.asides >= veryOften:
		wait = max(wait, 10*time.Minute)
	case others && it.asides >= often:
		wait = max(wait, time.Minute)
	}
	return []ruling{{item: it, fate: aside, wait: wait}}
}

// known: see [judge].
func (j *judge) known(it *item) bool { return !it.badAt.IsZero() && j.accepted.at.After(it.badAt) }

// bad counts a bad answer, and begins an outage when it is everybody's.
func (j *judge) bad(it *item, now time.Time) {
	switch {
	case j.known(it):
		return
	case j.outage.onTrial():
		if !it.sent.Before(j.outage.since) {
			j.outage.failed(j.jitter, now)
			if it.verdict.Status != http.StatusTooManyRequests {
				j.all.restore()
			}
		}
		return
	}
	if it.sent.Before(j.accepted.at) && !it.verdict.Unreachable {
		return // something was accepted meanwhile
	}
	if j.streak++; (!j.outage.on || j.outage.opening) && (j.streak >= longestStreak || it.verdict.Unreachable) {
		j.outage.begin(now)
	}
}

// limit spaces requests, because the primary has asked for it: the group's, or everybody's where it asks whoever
// sends. That is so when other groups are limited, too, and when a group meets what is known as everybody's limit for
// the first time. A group that is limited while nothing is known of others may be either.
func (j *judge) limit(it *item, wait time.Duration, others bool, now time.Time) {
	limited := j.groups.othersLimited(it.group, now)
	common := limited >= 2 || limited == 1 && !others || j.all.gap > 0 && !j.ofOne && !j.groups.isLimited(it.group, now)
	if !common {
		j.groups.limit(it, wait, now)
	}
	if !others || common {
		j.ofOne = !common
		j.all.limit(it, wait, min(wait, mostApart), now)
	}
	j.accepted.forget(it.group)
}

// probed takes the answer to a probe.
func (j *judge) probed(alive bool, now time.Time) []ruling {
	first := !j.outage.probed
	j.outage.answered(alive, j.jitter, now)
	switch {
	case alive:
		return j.release(isPause, aside) // so that another request is the next
	case first:
		j.all.restore()
		return j.requeueSuspended(isPause)
	}
	return nil
}
