package httpapi

import (
	"sync"
	"sync/atomic"
	"time"
)

// room is an account of bytes, those that bodies take: on their way in, and in hand. It counts what has come, in steps, and
// not what a client says that it will send.
type room struct {
	limit int64
	used  atomic.Int64

	mu       sync.Mutex
	arriving map[*intake]bool // guarded by mu: those that did not come at once
}

func newRoom(limit int64) *room { return &room{limit: limit, arriving: map[*intake]bool{}} }

const (
	// A body trickles when, a quarter of a second after its beginning, it comes at less than 16 KiB a second.
	trickleAfter = 250 * time.Millisecond
	trickleRate  = 16 << 10
	// roomPatience is how long is waited for the room of bodies that were given up.
	roomPatience = time.Second
)

// take counts n bytes in, if there is room for them. For want of it, bodies that trickle are given up.
func (r *room) take(n int64) bool {
	if r.tryTake(n) {
		return true
	}
	if !r.giveUpTrickling() {
		return false
	}
	for end := time.Now().Add(roomPatience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if r.tryTake(n) {
			return true
		}
	}
	return false
}

func (r *room) tryTake(n int64) bool {
	for {
		used := r.used.Load()
		if used+n > r.limit {
			return false
		}
		if r.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

func (r *room) release(n int64) { r.used.Add(-n) }

// giveUpTrickling ends the wait for each body that trickles, and says whether there was one.
func (r *room) giveUpTrickling() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, found := time.Now(), false
	for b := range r.arriving {
		if b.trickles(now) {
			found = true
			b.giveUp()
		}
	}
	return found
}

func (r *room) arrives(b *intake) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.arriving[b] = true
}

func (r *room) arrived(b *intake) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.arriving, b)
}
