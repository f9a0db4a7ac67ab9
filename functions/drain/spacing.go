package drain

import (
	"math"
	"time"
)

const (
	// mostApart bounds a spacing for everybody, mostApartInGroup that of a group.
	mostApart, mostApartInGroup = 250 * time.Millisecond, time.Second
	// steady is how long a spacing stays as it is. After that, it shrinks by the part faster in each second, so that a
	// limit which was raised is found.
	steady, faster = 10 * time.Second, 0.03
	// catchUp: one that was sent too late lets the next come a 16th of the gap sooner.
	catchUp = 16
)

// spacing is the time between two requests that a primary which limits the rate lets pass. It is measured: how many
// were accepted from one time that it asked to the next.
type spacing struct {
	gap, old time.Duration // old is what it was before
	since    time.Time     // gap is from then
	first    time.Time     // the first request after that; zero until it is sent
	last     time.Time     // the last request
	accepted int           // since since
}

// limit is for a request at which the primary has asked for a wait; most is the longest gap.
func (s *spacing) limit(it *item, wait, most time.Duration, now time.Time) {
	if !s.since.IsZero() && (!it.sent.After(s.since) || s.gap > 0 && it.sent.Sub(s.since) < min(wait, time.Second)) {
		return // it was under way already, or the wait that the primary has asked for is not over
	}
	old := s.apart(now)
	gap := old
	switch {
	case s.since.IsZero(): // from here on it is counted
	case s.accepted == 0: // nothing is measured
		gap = max(2*old, most/16)
	case old == 0 || now.Sub(s.since) < steady:
		// what it had saved up was counted, too, and so the gap may still be too small
		gap = max(now.Sub(s.first)/time.Duration(s.accepted)*17/16, old*5/4)
	default: // it has shrunk to what is just too small
		gap = old * 17 / 16
	}
	*s = spacing{old: old, gap: min(gap, most), since: now, last: s.last}
}

// send notes that a request is sent.
func (s *spacing) send(now time.Time) {
	gap := s.apart(now)
	if due := s.last.Add(gap); due.After(now) { // it did not wait for its turn, as in a trial
		s.last = now
	} else {
		s.last = later(due, now.Add(-gap/catchUp))
	}
	if s.first.IsZero() {
		s.first = now
	}
}

// restore takes the last limit back: it was no limit, but an outage.
func (s *spacing) restore() { s.gap = s.old }

// lift takes all limits back.
func (s *spacing) lift() { *s = spacing{last: s.last} }

// apart is the gap as it is now.
func (s *spacing) apart(now time.Time) time.Duration {
	age := now.Sub(s.since) - steady
	if s.gap == 0 || age <= 0 {
		return s.gap
	}
	gap := time.Duration(float64(s.gap) * math.Pow(1-faster, age.Seconds()))
	if gap < time.Millisecond/10 {
		return 0
	}
	return gap
}

// next is when the next request may be sent.
func (s *spacing) next(now time.Time) time.Time { return s.last.Add(s.apart(now)) }
