package drain

import (
	"time"

	"fallback/functions/backoff"
)

// search is for a crowd: all that is unacked is of one group that the primary limits. It sets them aside to reach other
// groups, for as long as sending the rest would take longer than recount, which is also the shortest wait on a retry
// queue. A move costs the broker two writes, so it rests after a search that found nobody. A walk (outage.go) is
// another thing: nothing is accepted then, and it looks for a request that is, a few between two trials; here the crowd
// itself is accepted, one per gap.
type search struct {
	wanted bool // the queue is to be counted
	on     bool
	behind int // were on the queue when it was counted, less those that have come since
	moved  int // set aside before they were sent, since the last count
	vain   int // searches that found nobody, in a row
	ended  time.Time
}

// recount is for how long a count of the queue holds, and how long the next search waits after one that found
// somebody.
const recount = 10 * time.Second

// counted begins a search. But when at least as many were set aside before it as wait now, as a trial does, and nobody
// was found, that was the search already.
func (s *search) counted(waiting int, now time.Time) {
	switch {
	case !s.wanted:
		return
	case s.vain == 0 && s.moved > 0 && s.moved >= waiting:
		s.vain, s.ended = 1, now
	default:
		s.on, s.behind = true, waiting
	}
	s.wanted, s.moved = false, 0
}

// goesOn moves the search on, and says whether a group's requests, one per gap, are to be set aside. others says that
// another group's was accepted in the last ten minutes.
func (s *search) goesOn(gap time.Duration, others bool, now time.Time) bool {
	rest := recount
	if others {
		s.vain, s.moved = 0, 0
	} else if s.vain > 0 {
		rest = backoff.Wait(s.vain-1, firstPause, longestPause)
	}
	switch {
	case s.on && s.behind <= 0:
		s.on, s.ended = false, now
		if s.moved > 0 {
			s.vain++
		}
	case !s.on && gap > 0 && now.Sub(s.ended) >= rest:
		s.wanted = true
	}
	return s.on && time.Duration(s.behind)*gap > recount
}
