package drain

import (
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"fallback/functions/backoff"
)

// group is where a request goes and who sends it: what answers depend on, if they do not depend on the request alone.
// It is a hash, with a key that no stranger knows.
type group uint64

// mostGroups bounds the groups that are remembered: a stranger can vary who he says that he is.
const mostGroups = 1024

const (
	// longestAsked bounds how long a group waits because the primary asks for it, longestFailing how long because its
	// requests fail, while others do well. aloneAsked and aloneFailing bound the two while nothing else does well.
	longestAsked, longestFailing = time.Hour, time.Minute
	aloneAsked, aloneFailing     = 2 * time.Second, time.Second
	// askedLately is how long a group counts as limited after the primary has asked it to wait.
	askedLately = 10 * time.Second
)

// record is what is known of a group that was answered badly.
type record struct {
	streak   int       // bad answers since the last good one, refusals not counted
	bad      time.Time // the last bad answer, refusals counted
	next     time.Time // nothing of it is sent before
	asked    time.Time // when it was last asked to wait
	spacing  spacing
	overdue  int     // in flight, for too long
	refusals int     // since the last good answer
	away     []shift // for each retry queue
}

// shift is how many requests of a group were set aside to a queue since a time.
type shift struct {
	since time.Time
	n     int
}

// setAside counts one more request of the group that is set aside, and returns how long it is to be away, for a wait at
// least. A retry queue gets no more of them than can be sent within the TTL of the next longer one; the longest has the
// rest. So none is moved again and again.
func (t *record) setAside(wait time.Duration, retries []Retry, now time.Time) time.Duration {
	gap := t.spacing.apart(now)
	if gap == 0 || len(retries) == 0 {
		return wait
	}
	if t.away == nil {
		t.away = make([]shift, len(retries))
	}
	for i, q := range retries[:len(retries)-1] {
		s, next := &t.away[i], retries[i+1].TTL
		if now.Sub(s.since) >= q.TTL {
			*s = shift{since: now}
		}
		if next > wait && time.Duration(s.n)*gap/2 < next { // half: gap is measured, and too long at times
			s.n++
			return max(wait, q.TTL)
		}
	}
	return max(wait, retries[len(retries)-1].TTL)
}

// groups are those that do badly.
type groups struct {
	records *simplelru.LRU[group, *record]
}

func newGroups() groups {
	records, err := simplelru.NewLRU[group, *record](mostGroups, nil)
	if err != nil {
		panic(err) // for a size under 1 only
	}
	return groups{records}
}

// of is nil for a group that always did well, or is forgotten.
func (s *groups) of(g group) *record {
	t, _ := s.records.Get(g)
	return t
}

func (s *groups) ensure(g group) *record {
	t := s.of(g)
	if t == nil {
		t = &record{}
		s.records.Add(g, t)
	}
	return t
}

// bad counts a pause or a failure, and makes the group wait before its next request: as long as the primary asks, but
// no longer than 2 s after the first bad answer in a row, 4 s after the second, and so on; where it does not ask, 1 s
// from the second one on, doubling, too.
func (s *groups) bad(it *item, asked time.Duration, others bool, now time.Time) {
	t := s.ensure(it.group)
	t.streak++
	t.bad = now
	var wait time.Duration
	switch {
	case asked > 0:
		t.asked = now
		wait = min(asked, backoff.Wait(t.streak, time.Second, longestAsked))
		if !others {
			wait = min(wait, aloneAsked)
		}
	case t.streak >= 2:
		wait = backoff.Wait(t.streak-2, time.Second, longestFailing)
		if !others {
			wait = min(wait, aloneFailing)
		}
	}
	t.next = now.Add(wait)
}

// refused notes that the group does badly; it does not wait for that.
func (s *groups) refused(it *item, now time.Time) {
	t := s.ensure(it.group)
	t.refusals++
	t.bad = now
}

func (s *groups) good(g group) {
	if t := s.of(g); t != nil {
		t.streak, t.refusals, t.next = 0, 0, time.Time{}
		t.spacing.accepted++
	}
}

// clear is for when everybody did badly.
func (s *groups) clear() {
	for _, t := range s.records.Values() {
		t.streak, t.next = 0, time.Time{}
	}
}

// isLimited says whether a group was asked to wait, lately.
func (s *groups) isLimited(g group, now time.Time) bool {
	t, _ := s.records.Peek(g)
	return t != nil && !t.asked.IsZero() && now.Sub(t.asked) < askedLately
}

// othersLimited is how many other groups are.
func (s *groups) othersLimited(g group, now time.Time) (n int) {
	for _, other := range s.records.Keys() {
		if other != g && s.isLimited(other, now) {
			n++
		}
	}
	return n
}

func (s *groups) limit(it *item, wait time.Duration, now time.Time) {
	s.ensure(it.group).spacing.limit(it, wait, min(wait, mostApartInGroup), now)
}
