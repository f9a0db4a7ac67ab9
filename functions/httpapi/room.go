package httpapi

import (
	"sync"
	"sync/atomic"
	"time"
)

// room is an account of bytes, those that bodies take: on their way in, and in hand. It counts what has come, in
// steps, and not what a client says that it will send.
type room struct {
	limit  int64
	within *room // what is taken here is taken there, too; nil for the outermost
	used   atomic.Int64

	mu       sync.Mutex
	arriving map[*intake]bool // guarded by mu; the outermost room knows all
}

func newRoom(limit int64, within *room) *room {
	return &room{limit: limit, within: within, arriving: map[*intake]bool{}}
}

func (r *room) outermost() *room {
	if r.within != nil {
		return r.within.outermost()
	}
	return r
}

const (
	// A body trickles when, a quarter of a second after its beginning, it comes at less than 16 KiB a second.
	trickleAfter = 250 * time.Millisecond
	trickleRate  = 16 << 10
	// roomPatience is how long to wait for the room of bodies that were given up, or heads.
	roomPatience = time.Second
)

// take counts n bytes in, if there is room for them. For want of it, bodies that trickle are given up.
func (r *room) take(n int64) bool {
	full := r.tryTake(n)
	if full == nil {
		return true
	}
	if !full.giveUpTrickling() {
		return false
	}
	for end := time.Now().Add(roomPatience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if r.tryTake(n) == nil {
			return true
		}
	}
	return false
}

// tryTake returns the room that is too full.
func (r *room) tryTake(n int64) (full *room) {
	for {
		used := r.used.Load()
		if used+n > r.limit {
			return r
		}
		if r.used.CompareAndSwap(used, used+n) {
			break
		}
	}
	if r.within == nil {
		return nil
	}
	if full = r.within.tryTake(n); full != nil {
		r.used.Add(-n)
	}
	return full
}

func (r *room) release(n int64) {
	r.used.Add(-n)
	if r.within != nil {
		r.within.release(n)
	}
}

// giveUpTrickling ends the wait for each body of this room that trickles, and says whether there was one.
func (r *room) giveUpTrickling() bool {
	all := r.outermost()
	all.mu.Lock()
	defer all.mu.Unlock()
	now, found := time.Now(), false
	for b := range all.arriving {
		if (r == all || b.room == r) && b.trickles(now) {
			found = true
			b.giveUp()
		}
	}
	return found
}
