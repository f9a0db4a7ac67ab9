package httpapi

import (
	"net/netip"
	"sync"
	"time"
)

// places bound the open connections. When none is left, the address with the most connections loses the one that has
// waited longest, so that no client shuts out the others, nor itself; who has a request in hand keeps its place,
// unless its body trickles.
type places struct {
	most int

	mu  sync.Mutex           // guards what follows
	of  map[*conn]struct{}   // who is in
	per map[netip.Prefix]int // how many of them have the same address
}

func newPlaces(most int) *places {
	return &places{most: most, of: map[*conn]struct{}{}, per: map[netip.Prefix]int{}}
}

// take gives the connection a place, and returns the one that has lost its own for it, if any did. There may be no
// place.
func (p *places) take(c *conn) (loser *conn, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.of) >= p.most {
		if loser = p.evict(c.address); loser == nil {
			return nil, false
		}
	}
	p.of[c] = struct{}{}
	p.per[c.address]++
	return loser, true
}

// leave gives a place back. A connection that has none any more may leave, too.
func (p *places) leave(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remove(c)
}

func (p *places) taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.of)
}

// evict returns a connection that has lost its place now to one of that address; nil when none can. It needs mu.
func (p *places) evict(newcomer netip.Prefix) *conn {
	for {
		switch loser := p.idlest(newcomer); {
		case loser == nil:
			return nil
		case loser.evict(): // else its request has come just now
			p.remove(loser)
			return loser
		}
	}
}

// settleTime protects a connection that has just come, was just answered, or has just begun its head: its request may
// be on its way, and would get no answer. For so long it keeps its place, unless its address has at least two more
// connections than the newcomer's.
const settleTime = time.Second

// idlest is, of those that may lose their places, one of the address with the most, and of these the one that has
// waited longest. It needs mu.
func (p *places) idlest(newcomer netip.Prefix) (found *conn) {
	now := time.Now()
	settled := now.Add(-settleTime).UnixNano()
	for c := range p.of {
		since, many := c.since.Load(), p.per[c.address]
		switch {
		case !c.mayLose(now):
		case c.stage.Load() == waiting && since > settled && many <= p.per[newcomer]+1:
		case found == nil, many > p.per[found.address], many == p.per[found.address] && since < found.since.Load():
			found = c
		}
	}
	return found
}

// evictLargest returns the connection with the largest head of those that are larger than that. It has lost its place,
// as idlest's does; nil when none can.
func (p *places) evictLargest(than int64) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		var found *conn
		now, most := time.Now(), than
		for c := range p.of {
			if held := c.held.Load(); held > most && c.mayLose(now) {
				found, most = c, held
			}
		}
		switch {
		case found == nil:
			return nil
		case found.evict(): // else its request has come just now
			p.remove(found)
			return found
		}
	}
}

// remove needs mu.
func (p *places) remove(c *conn) {
	if _, ok := p.of[c]; !ok {
		return
	}
	delete(p.of, c)
	if p.per[c.address]--; p.per[c.address] == 0 {
		delete(p.per, c.address)
	}
}
