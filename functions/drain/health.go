package drain

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"fallback/functions/target"
)

// Trouble is what keeps requests from being delivered, for as long as it lasts.
type Trouble string

// The troubles.
const (
	QueueAway Trouble = "queue-away" // the queue cannot be read
	// nothing is sent: the primary does not take what it is sent, or its probe says no
	PrimaryAway Trouble = "primary-away"
	Looping     Trouble = "loop"      // the way to the primary leads back to a door of Fallback
	HandOver    Trouble = "hand-over" // the broker cannot hand over a message; what is behind it is delivered
	NoRoom      Trouble = "no-room"   // no queue takes what should be moved there, or says so in time
)

// Troubles are all that there are.
func Troubles() []Trouble { return []Trouble{QueueAway, PrimaryAway, Looping, HandOver, NoRoom} }

// troubles are those that there are now.
type troubles struct {
	mu   sync.Mutex
	why  map[Trouble]string
	met  map[Trouble]time.Time // last
	tell func(Trouble, bool)
}

// set notes whether there is one, and why; it says whether that is news.
func (t *troubles) set(which Trouble, on bool, why string) (news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, was := t.why[which]
	if delete(t.why, which); on {
		t.why[which], t.met[which] = why, time.Now()
	}
	if on != was {
		t.tell(which, on)
	}
	return on != was
}

func (t *troubles) is(which Trouble) (why string, on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	why, on = t.why[which]
	return why, on
}

// renew is for a run that leaves requests for the primary: its troubles last.
func (t *troubles) renew() {
	for _, which := range []Trouble{PrimaryAway, Looping} {
		if why, on := t.is(which); on {
			t.set(which, true, why)
		}
	}
}

// forget is for a run that leaves none: it ends troubles that no run has met for so long, since another worker may have
// taken what met them.
func (t *troubles) forget(after time.Duration) {
	for _, which := range []Trouble{PrimaryAway, Looping} {
		t.mu.Lock()
		old := time.Since(t.met[which]) > after
		t.mu.Unlock()
		if old {
			t.set(which, false, "")
		}
	}
}

// ErrLoop says that the way to the primary leads back to a door of Fallback. See [Drainer.Ready].
var ErrLoop = errors.New("a loop")

// Ready is nil when the whole queue can be read and the way to the primary is no loop. The error wraps [ErrLoop], or
// [ErrHandOver] when the broker cannot hand over a message; any other says why the queue cannot be read. While no run
// has requests, Ready asks the source itself, as the next run may be a day away; else it says what the run knows.
func (d *Drainer) Ready() error {
	if !d.occupied.Load() && d.using.TryLock() {
		d.look()
		d.using.Unlock()
	}
	if why, on := d.troubles.is(QueueAway); on {
		return errors.New(why)
	}
	if why, on := d.troubles.is(Looping); on {
		return fmt.Errorf("%w: %s", ErrLoop, why)
	}
	if why, on := d.troubles.is(HandOver); on {
		return fmt.Errorf("%w: %s", ErrHandOver, why)
	}
	return nil
}

// heard notes whether an answer is a door's. The primary itself takes requests, or rejects them.
func (d *Drainer) heard(v target.Verdict) {
	if v.Loop || v.Action == target.Done || rejects(v) {
		d.troubles.set(Looping, v.Loop, v.Reason)
	}
}

// rejects says that the primary has answered, and that it speaks of the request alone.
func rejects(v target.Verdict) bool { return v.Action == target.Reject && v.Status != 0 }

// look asks the source, once a second at most.
func (d *Drainer) look() {
	if d.closed || time.Since(d.looked) < lookEvery {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	_, err := d.source.Waiting(ctx)
	d.looked = time.Now()
	if d.reached(err) && err != nil {
		d.options.Log.Warn("cannot look at the queue", "error", err)
	}
}

// reached notes whether the source could be reached, and says whether that is news.
func (d *Drainer) reached(err error) (news bool) {
	if err == nil {
		return d.troubles.set(QueueAway, false, "")
	}
	return d.troubles.set(QueueAway, true, err.Error())
}
