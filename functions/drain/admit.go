package drain

import "time"

// soon is how long a request is kept for its turn. For longer, it is set aside, if others do well meanwhile.
const soon = 2 * time.Second

// turn says when a request may be sent that has not been sent yet. ofGroup: only its group waits, so it may be set
// aside to make room for others. aside: it is to be on a retry queue till then.
type turn struct {
	at             time.Time
	ofGroup, aside bool
}

// admit says when it is a request's turn, and moves a walk or a search on. flying are those in flight, most is how many
// may be.
func (j *judge) admit(it *item, flying []*item, most int, now time.Time) turn {
	if it.notBefore.After(now) {
		return turn{at: it.notBefore, ofGroup: true, aside: it.notBefore.Sub(now) > soon}
	}
	t := j.groups.of(it.group)
	switch {
	case t == nil:
		return turn{at: now}
	case j.outage.trial && j.outage.walk.step():
		return turn{at: now, aside: true}
	case j.outage.onTrial() && t.bad.After(j.accepted.at):
		// nothing else does well, so its waits do not count
		return turn{at: now}
	}
	others := j.accepted.others(it.group, now)
	at := t.next
	if longest := t.bad.Add(aloneAsked); !others && at.After(longest) {
		at = longest
	}
	at = later(at, t.spacing.next(now))
	switch {
	case t.overdue > 0:
		at = later(at, now.Add(soon+time.Millisecond)) // over soon, so that it may be set aside
	case j.isFull(it, t, flying, most):
		at = later(at, now.Add(soon))
	}
	ofGroup := others || j.outage.onTrial() || j.accepted.othersSince(it.group, t.bad) ||
		at.After(now) && j.search.goesOn(t.spacing.apart(now), j.othersDidWell(it.group, now), now)
	return turn{at, ofGroup, ofGroup && at.Sub(now) > soon}
}

// othersDidWell says that a request of another group was accepted in the last ten minutes, so that this group's
// requests are not to be in the way of others again and again.
func (j *judge) othersDidWell(g group, now time.Time) bool {
	return j.accepted.othersSince(g, now.Add(-firstPause))
}

// isFull: a group that does badly has one request in flight at a time. All such groups together have a quarter of the
// requests that may be in flight.
func (j *judge) isFull(it *item, t *record, flying []*item, most int) bool {
	if t.streak == 0 {
		return false
	}
	inTrouble := 0
	for _, other := range flying {
		if other.group == it.group {
			return true
		}
		if o, _ := j.groups.records.Peek(other.group); o != nil && o.streak+o.overdue > 0 {
			inTrouble++
		}
	}
	return inTrouble >= max(most/4, 1)
}

// sent notes that a request is sent.
func (j *judge) sent(it *item, now time.Time) {
	it.sent = now
	j.all.send(now)
	if t := j.groups.of(it.group); t != nil {
		t.spacing.send(now)
	}
}

// markOverdue notes that a request is in flight for too long. While others do well, no more of its group is sent
// meanwhile.
func (j *judge) markOverdue(it *item) { j.countOverdue(it, 1) }

// unmarkOverdue is for when that is not in flight any more.
func (j *judge) unmarkOverdue(it *item) { j.countOverdue(it, -1) }

func (j *judge) countOverdue(it *item, n int) {
	it.overdue = n > 0
	t := j.groups.ensure(it.group)
	t.overdue = max(t.overdue+n, 0) // it may have been forgotten meanwhile
	j.overdue += n
	t.bad = later(t.bad, it.sent)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
