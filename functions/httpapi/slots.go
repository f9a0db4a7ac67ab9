package httpapi

import (
	"net/netip"
	"sync"
	"time"
)

// slots bound the open connections. When none is left, the address with the most connections loses the one that has
// waited longest, so that no client shuts out the others, nor itself; who is busy keeps its slot, unless the body
// trickles.
type slots struct {
	most int

	mu  sync.Mutex           // guards what follows
	of  map[*conn]struct{}   // who is in
	per map[netip.Prefix]int // how many of them have the same address
}

func newSlots(most int) *slots {
	return &slots{most: most, of: map[*conn]struct{}{}, per: map[netip.Prefix]int{}}
}

// take gives the connection a slot, and returns the one that has lost its own for it, if any did. There may be no
// slot.
func (s *slots) take(c *conn) (loser *conn, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.of) >= s.most {
		if loser = s.evict(c.address); loser == nil {
			return nil, false
		}
	}
	s.of[c] = struct{}{}
	s.per[c.address]++
	return loser, true
}

// leave gives a slot back. A connection that has none any more may leave, too.
func (s *slots) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(c)
}

func (s *slots) taken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.of)
}

// evict returns a connection that has lost its slot now to one of that address; nil when none can. It needs mu.
func (s *slots) evict(newcomer netip.Prefix) *conn {
	for {
		switch loser := s.idlest(newcomer); {
		case loser == nil:
			return nil
		case loser.evict(): // else its request has come just now
			s.remove(loser)
			return loser
		}
	}
}

// settleTime protects a connection that has just come, was just answered, or has just begun its head: its request may
// be on its way, and would get no answer. For so long it keeps its slot, unless its address has at least two more
// connections than the newcomer's.
const settleTime = time.Second

// idlest is, of those that may lose their slots, one of the address with the most, and of these the one that has
// waited longest. It needs mu.
func (s *slots) idlest(newcomer netip.Prefix) (found *conn) {
	now := time.Now()
	settled := now.Add(-settleTime).UnixNano()
	for c := range s.of {
		since, many := c.since.Load(), s.per[c.address]
		switch {
		case !c.mayLose(now):
		case c.stage.Load() == waiting && since > settled && many <= s.per[newcomer]+1:
		case found == nil, many > s.per[found.address], many == s.per[found.address] && since < found.since.Load():
			found = c
		}
	}
	return found
}

// evictLargest returns the connection with the largest head of those that are larger than that. It has lost its slot,
// as idlest's does; nil when none can.
func (s *slots) evictLargest(than int64) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		var found *conn
		now, most := time.Now(), than
		for c := range s.of {
			if charged := c.charged.Load(); charged > most && c.mayLose(now) {
				found, most = c, charged
			}
		}
		switch {
		case found == nil:
			return nil
		case found.evict(): // else its request has come just now
			s.remove(found)
			return found
		}
	}
}

// remove needs mu.
func (s *slots) remove(c *conn) {
	if _, ok := s.of[c]; !ok {
		return
	}
	delete(s.of, c)
	if s.per[c.address]--; s.per[c.address] == 0 {
		delete(s.per, c.address)
	}
}
