package drain

import (
	"time"

	"fallback/functions/backoff"
)

// outage is while nothing is sent, because the primary does not seem to take anything from anybody. It is probed until
// it is alive. Then it is on trial: requests go one at a time, until one is accepted, which ends the outage, or fails,
// which begins it anew. One that is rejected does neither. At the beginning of a run, or after a loss of the source
// (opening), nothing is known of an outage: a bad answer ends no trial there, unless the primary cannot be reached or
// the streak is too long.
type outage struct {
	on      bool
	trial   bool
	opening bool      // it began without a bad answer
	probed  bool      // has been, since the outage began
	since   time.Time // it, or the trial, began
	next    time.Time // no probe before
	probes  int       // that said that it is not alive, in a row
	trials  int       // that failed
	walk    walk
}

const (
	// shortestProbing doubles up to longestProbing: the probe costs the primary little, and one that comes and goes is
	// found.
	shortestProbing, longestProbing = 250 * time.Millisecond, time.Second
	// mostSkipped bounds those that are set aside between two trials.
	mostSkipped = 1024
)

// closed says that nothing is sent.
func (o *outage) closed() bool { return o.on && !o.trial }

// onTrial says that requests go one at a time, because one was answered badly.
func (o *outage) onTrial() bool { return o.trial && !o.opening }

func (o *outage) begin(now time.Time) {
	*o = outage{on: true, since: now, next: now.Add(shortestProbing)}
}

// open is for when it is not known whether the primary takes anything.
func (o *outage) open(now time.Time) { *o = outage{on: true, opening: true, since: now, next: now} }

// resume is for the beginning of a run: first of all, the primary is probed.
func (o *outage) resume(now time.Time) {
	if !o.on {
		o.open(now)
	} else if o.trial {
		o.trial, o.next = false, now
	}
}

// answered is for a probe. What the primary asks a probe to wait is not heard: it is what a page for maintenance says,
// and not when the primary is back; and one small request a second costs it little.
func (o *outage) answered(alive bool, jitter backoff.Jitter, now time.Time) {
	o.probed = true
	if alive {
		o.trial, o.since, o.probes = true, now, 0
		return
	}
	o.probes++
	o.next = now.Add(between(o.probes, jitter))
}

// failed is for a trial. Those of groups that do badly are set aside then, twice as many each time, so that somebody
// else's turn comes.
func (o *outage) failed(jitter backoff.Jitter, now time.Time) {
	o.trials++
	o.opening = false
	o.trial, o.since, o.next = false, now, now.Add(between(o.trials, jitter))
	if o.trials > 1 {
		o.walk.skip = min(1<<min(o.trials-2, 20), mostSkipped)
	}
}

// walk goes through the queue in search of a request that the primary accepts: those of groups that do badly are
// set aside. It goes once through the queue, and then not for a while: each request costs the broker two writes.
type walk struct {
	skip   int       // may be set aside before the next trial
	gone   int       // were, by this walk
	length int       // of the queue, when it began
	walks  int       // that found nothing
	next   time.Time // no other before
}

// firstPause doubles up to longestPause, after each walk that found nothing.
const firstPause, longestPause = 10 * time.Minute, 128 * firstPause

// bound bounds those that may be set aside before the next trial. waiting is how many are on the queue.
func (w *walk) bound(waiting int, now time.Time) {
	if w.gone == 0 {
		w.length = waiting
	}
	if w.gone > 0 && w.gone >= w.length {
		w.end(now)
	}
	if now.Before(w.next) {
		w.skip = 0
	}
	w.skip = min(w.skip, waiting/2)
}

// end is for one that has found nothing, or finds no room.
func (w *walk) end(now time.Time) {
	w.skip, w.gone, w.next = 0, 0, now.Add(backoff.Wait(w.walks, firstPause, longestPause))
	w.walks++
}

// step takes one more, and says whether it is to be set aside.
func (w *walk) step() bool {
	if w.skip == 0 {
		return false
	}
	w.skip--
	w.gone++
	return true
}

// between is the wait from one probe to the next, after the nth failure.
func between(n int, jitter backoff.Jitter) time.Duration {
	return jitter.Shorten(backoff.Wait(n, shortestProbing, longestProbing), 4)
}
