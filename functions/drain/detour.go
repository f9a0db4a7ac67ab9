package drain

import (
	"context"
	"errors"
	"time"
)

// detour is the way past a message that the broker cannot hand over. It closes the connection by which it tries to,
// and the message is the first on the queue again. So when the source was lost for that three times at the same place,
// what is behind it is taken by [Source.Pass], until an operator has seen to the message, or nothing is left but such.
type detour struct {
	on     bool
	losses int // of the source, at the same place
	tries  int // that found nothing behind it
	left   int // on the queue, when tries found nothing
	next   time.Time
	seen   time.Time // when the source was last lost for such a message
}

const (
	// mostAtPlace is how many losses at the same place are the fault of a message.
	mostAtPlace = 3
	// mostTries is how many tries in a row must find nothing, before nothing is left but such messages: they may have
	// taken every connection of a try. Where one message at most is left, one try is enough.
	mostTries = 4
	// detourRest is for how long no other try is made then, unless more requests are on the queue. Each costs the
	// broker some connections, and its log as many reports.
	detourRest = 10 * time.Minute
	// After gone without ErrHandOver, the message counts as removed. Not sooner: the broker requeues what a lost
	// connection had a moment late.
	gone = 10 * time.Second
)

// stranded is why a run ends that has taken all that can be.
const stranded = "what is left, the broker cannot hand over"

// settled is for a request that is off the queue: the next loss is at another place.
func (d *detour) settled() {
	if !d.on {
		d.losses = 0
	}
}

// lost counts a loss for such a message.
func (d *detour) lost() {
	d.losses++
	d.on = d.losses >= mostAtPlace
}

// found counts what a try has come to. It says whether nothing is left but such messages.
func (d *detour) found(taken, left int, now time.Time) (over bool) {
	if d.tries++; taken > 0 {
		d.tries = 0
	}
	if d.tries < mostTries && (taken > 0 || left > 1) {
		return false
	}
	d.tries, d.left, d.next = 0, left, now.Add(detourRest)
	return true
}

// rests says that no other try is made yet, where so many are on the queue.
func (d *detour) rests(waiting int, now time.Time) bool {
	return d.on && waiting <= d.left && now.Before(d.next)
}

// passed is what one call of [Source.Pass] came to: how many it took, and how many were left where it took none.
type passed struct {
	taken, left int
}

// goPast hands on what is behind such messages.
func (r *run) goPast(ctx context.Context, arrivals chan<- *item) feedEnd {
	r.using.Lock()
	defer r.using.Unlock()
	taken, err := r.source.Pass(r.wrapUp)
	p := &passed{taken: len(taken)}
	for i, d := range taken {
		select {
		case arrivals <- open(d, time.Now()):
			continue
		case <-ctx.Done():
		}
		for _, d := range taken[i:] {
			_ = d.Requeue()
		}
		return feedEnd{err, p}
	}
	if p.taken == 0 && errors.Is(err, ErrHandOver) {
		p.left, _ = r.source.Left(r.wrapUp, 2)
	}
	if p.taken == 0 && err == nil {
		err = ErrDry
	}
	return feedEnd{err, p}
}

// handOver is for a feeder that ended for such a message, or went past some.
func (r *run) handOver(e feedEnd, now time.Time) {
	d := &r.detour
	d.seen = now
	switch {
	case e.passed == nil:
		d.lost()
	case d.found(e.passed.taken, e.passed.left, now):
		r.stop(stranded)
	}
	if d.on && r.troubles.set(HandOver, true, "see docs/drain.md") {
		r.options.Log.Error("the broker cannot hand over a message, and closes each connection by which it tries "+
			"to; what is behind it is delivered",
			"hint", "docs/drain.md says how the message is moved to the parked queue; fallback doctor --look tells "+
				"whether it is there still")
	}
}

// handedOver is for a feeder that met no such message.
func (r *run) handedOver(now time.Time) {
	if !r.detour.on || now.Sub(r.detour.seen) < gone {
		return
	}
	r.detour = detour{}
	// those that came by the detour have connections that the next Take ends
	r.careful = max(r.careful, r.working())
	if r.troubles.set(HandOver, false, "") {
		r.options.Log.Info("the broker hands over all messages again")
	}
}
