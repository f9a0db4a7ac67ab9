package drain

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"fallback/functions/backoff"
	"fallback/functions/target"
)

// feeder takes requests off the source while it is wanted. Its fields are the loop's, but for toCount; what it begins
// has the source for itself.
type feeder struct {
	arrivals chan *item
	toCount  atomic.Bool        // how many wait is to be asked
	cancel   context.CancelFunc // nil while nothing is taken
	prefetch int
	round    int       // counts the feeders
	unacked  int       // of this one's
	epoch    int       // counts the losses: what was taken before is taken again
	dry      time.Time // nothing more was on the queue then; zero when that may have changed
	losses   int       // of the source, since a feeder was last stopped
	next     time.Time // nothing is taken before
}

const (
	// shortestWait doubles up to longestWait, after each loss of the source.
	shortestWait, longestWait = 200 * time.Millisecond, 5 * time.Second
	// dryFor is how long a queue that was empty is not asked again while something is with us.
	dryFor = time.Second
)

// isTaking says that what start or startPast has begun has not ended.
func (f *feeder) isTaking() bool { return f.cancel != nil }

// start begins to take, at most prefetch that are not settled.
func (f *feeder) start(r *run, prefetch int) {
	f.begin(r, prefetch, func(ctx context.Context) feedEnd { return feedEnd{err: r.take(ctx, prefetch, f.arrivals)} })
}

// startPast is start, by the detour.
func (f *feeder) startPast(r *run) {
	f.begin(r, math.MaxInt, func(ctx context.Context) feedEnd { return r.goPast(ctx, f.arrivals) })
}

func (f *feeder) begin(r *run, prefetch int, take func(context.Context) feedEnd) {
	ctx, cancel := context.WithCancel(r.window)
	f.cancel, f.prefetch, f.dry = cancel, prefetch, time.Time{}
	f.round, f.unacked = f.round+1, 0
	go func() {
		end := take(ctx)
		r.post(func(now time.Time) { r.fed(end, now) })
	}()
}

// feedEnd is why a feeder has ended; passed is not nil for one that went by the detour.
type feedEnd struct {
	err    error
	passed *passed
}

// took counts one that has arrived, and settled one that is not with us any more.
func (f *feeder) took(it *item) {
	it.round, it.epoch = f.round, f.epoch
	f.unacked++
}

func (f *feeder) settled(it *item) {
	if it.round == f.round {
		f.unacked--
	}
}

// stop ends it soon; that it has ended is an event.
func (f *feeder) stop() {
	if f.isTaking() {
		f.cancel()
	}
}

// ended notes why it has, and says whether the source was lost.
func (f *feeder) ended(err error, now time.Time) (lost bool) {
	f.cancel()
	f.cancel = nil
	switch {
	case errors.Is(err, ErrDry):
		f.dry = now
	case err != nil:
		f.lose(now)
		return true
	default:
		f.losses = 0
	}
	return false
}

// lose has the next one wait, longer each time.
func (f *feeder) lose(now time.Time) {
	f.next = now.Add(backoff.Wait(f.losses, shortestWait, longestWait))
	f.losses++
	f.epoch++
}

// take hands on what the source delivers until ctx ends, which is no error, or the source has an end.
func (r *run) take(ctx context.Context, prefetch int, arrivals chan<- *item) (err error) {
	r.using.Lock()
	defer r.using.Unlock()
	if err := r.source.Take(r.wrapUp, prefetch); err != nil {
		return err
	}
	defer func() {
		if failed := r.source.Stop(r.wrapUp); failed != nil && (err == nil || errors.Is(err, ErrDry)) {
			err = failed
		}
	}()
	for {
		d, err := r.source.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case arrivals <- open(d, time.Now()):
		case <-ctx.Done():
			_ = d.Requeue()
			return nil
		}
		if r.feeder.toCount.Swap(false) {
			waiting, err := r.source.Waiting(r.wrapUp)
			if err != nil {
				return err
			}
			r.post(func(now time.Time) { r.judge.search.counted(waiting, now) })
		}
	}
}

// knock is what a look at the queue, and then at the primary, says.
type knock struct {
	waiting int
	err     error // the source does not say
	asked   bool  // the primary was
	alive   bool
	verdict target.Verdict
}

// knock asks the queue, and the primary if there is something for it. The source is asked beyond the window: a question
// that is cut off costs the connection, by which those in flight are to be settled.
func (r *run) knock(probe bool) (k knock) {
	r.using.Lock()
	if k.waiting, k.err = r.source.Waiting(r.wrapUp); k.err == nil && k.waiting == 0 {
		k.waiting, k.err = r.source.Left(r.wrapUp, 1) // what was just requeued may not be counted yet
	}
	r.using.Unlock()
	if k.asked = k.err == nil && (probe || k.waiting > 0); k.asked {
		k.alive, k.verdict = r.probe()
	}
	return k
}

// probeTime bounds a probe that does not end by itself.
const probeTime = 30 * time.Second

// probe asks the primary, and waits for no answer that does not come.
func (r *run) probe() (alive bool, v target.Verdict) {
	type word struct {
		alive   bool
		verdict target.Verdict
	}
	answers := make(chan word, 1)
	go func() {
		alive, v := r.target.Probe(r.window)
		answers <- word{alive, v}
	}()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.window), probeTime)
	defer cancel()
	defer context.AfterFunc(r.window, func() { time.AfterFunc(wrapUpTime, cancel) })()
	select {
	case a := <-answers:
		return a.alive, a.verdict
	case <-ctx.Done():
		return false, target.Verdict{Action: target.Pause, Reason: "the probe has no end"}
	}
}
