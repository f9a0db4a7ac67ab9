package fault

import (
	"context"
	"net/http"
	"slices"
	"time"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// Evidence of faults behind the queue.
// new connections to the broker
func rejoins(c figures) bool { return c.replays.connections > 0 }

// requests that were parked
func parks(c figures) bool { return c.parked > 0 }

// requests that were too old
func expires(c figures) bool { return c.replays.expired > 0 }

// failed replays, and further ones
func retries(c figures) bool { return c.replays.tried > 0 && c.replays.again > 0 }

// workers that stopped taking requests
func waits(c figures) bool { return c.replays.waits > 0 }

// copies, and others went on meanwhile
func relieved(c figures) bool  { return duplicates(c) && c.onward > 0 }
func surprised(c figures) bool { return c.replays.kills > 0 && c.duplicated >= c.replays.kills } // a copy for each

// replayed is the list of faults behind the queue. Load goes on through the server while they strike, and the ledger
// counts what the primary gets.
var replayed = slices.Concat([]fault{
	{
		name: "worker SIGKILL and restart", about: "the worker is killed and started again, several times, at any " +
			"moment",
		strike: killWorker, heal: func(_ context.Context, r *rig) error { return r.outlet.workers[0].start() },
		shows: duplicates, workers: 1, serves: true,
	},
	{
		name:   "worker SIGKILL between answer and ack",
		about:  "the primary's 2xx has come, the ack has not gone: killed and started again, several times",
		strike: killBeforeAck, heal: func(_ context.Context, r *rig) error { return r.outlet.workers[0].start() },
		shows: surprised, workers: 1, serves: true,
	},
	{
		name: "worker SIGTERM and restart", about: "the worker ends in order and is started again",
		strike: func(_ context.Context, r *rig) error { return r.outlet.workers[0].terminate() },
		heal:   func(_ context.Context, r *rig) error { return r.outlet.workers[0].start() },
		hold:   span[time.Duration]{100 * time.Millisecond, 300 * time.Millisecond}, shows: rejoins, workers: 1,
		serves: true,
	},
	{
		name: "one of two workers SIGKILL", about: "the same; the other goes on",
		strike: killWorker, heal: func(_ context.Context, r *rig) error { return r.outlet.workers[0].start() },
		hold: span[time.Duration]{300 * time.Millisecond, 600 * time.Millisecond}, shows: relieved, early: true,
		serves: true, workers: 2,
	},
	{
		name:   "broker SIGKILL and restart, mid-drain",
		about:  "the broker's process is killed and started again while a worker replays",
		strike: docker("kill"), heal: startBroker, hold: span[time.Duration]{0, time.Second}, shows: rejoins,
		workers: 1, wide: true,
	},
	{
		name: "worker's connections closed by the operator", about: "again and again, through the management API",
		strike: func(_ context.Context, r *rig) error {
			r.background(every(200*time.Millisecond, func() { _ = r.closeConnections(topology.Drainer) }))
			return nil
		},
		heal: healBackground, hold: span[time.Duration]{500 * time.Millisecond, time.Second}, shows: rejoins,
		early: true, workers: 1, serves: true, wide: true,
	},
	{
		name: "worker's network reset", about: "its connections to the broker are reset, again and again",
		strike: func(_ context.Context, r *rig) error {
			r.background(every(300*time.Millisecond, r.outlet.proxy.reset))
			return nil
		},
		heal: healBackground, hold: span[time.Duration]{500 * time.Millisecond, time.Second}, shows: rejoins,
		early: true, workers: 1, serves: true,
	},
	{
		name: "confirms to a worker lost", about: "the primary fails at one in four; the broker confirms their " +
			"moves to the retry queue, and the connection is lost first",
		strike: swallowMoves,
		heal: func(_ context.Context, r *rig) error {
			r.outlet.proxy.reset()
			r.outlet.answer.Store(nil)
			return nil
		},
		hold: span[time.Duration]{500 * time.Millisecond, 800 * time.Millisecond}, shows: duplicates, workers: 1,
		serves: true,
	},
	{
		name: "primary down and up", about: "nobody listens, and open connections are reset; several times",
		strike: flap, heal: func(context.Context, *rig) error { return nil }, shows: waits, workers: 1, serves: true,
	},
	{
		name: "primary breaks off answers", about: "one in twenty 2xx is cut off by a reset",
		strike: answering(20, harness.Answer{Cut: true, After: primaryTime}), heal: answersWell,
		hold: span[time.Duration]{500 * time.Millisecond, time.Second}, shows: duplicates, workers: 1, serves: true,
	},
	{
		name: "primary answers too late", about: "one in twenty 2xx comes after FALLBACK_TARGET_TIMEOUT",
		strike: answering(20, harness.Answer{After: 800 * time.Millisecond}), heal: answersWell,
		hold: span[time.Duration]{500 * time.Millisecond, time.Second}, shows: duplicates, workers: 1, serves: true,
		drain: map[string]string{"FALLBACK_TARGET_TIMEOUT": "400ms"},
	},
	{
		name: "primary fails", about: "one in five answers is a 500",
		strike: answering(5, harness.Answer{Status: http.StatusInternalServerError, After: primaryTime}),
		heal:   answersWell,
		hold:   span[time.Duration]{500 * time.Millisecond, time.Second}, shows: retries, workers: 1, serves: true,
	},
	{
		name: "primary refuses", about: "one in ten answers is a 422",
		strike: answering(10, harness.Answer{Status: http.StatusUnprocessableEntity, After: primaryTime}),
		heal:   answersWell,
		hold:   span[time.Duration]{500 * time.Millisecond, time.Second}, shows: parks, workers: 1, serves: true,
	},
	{
		name: "primary down for too long", about: "what is older than FALLBACK_MAX_AGE then is dropped, as " +
			"FALLBACK_STALE says",
		strike: downWhenIdle, heal: func(_ context.Context, r *rig) error { r.outlet.up(); return nil },
		senders: span[int]{24, 40},
		hold:    span[time.Duration]{1500 * time.Millisecond, 2 * time.Second}, fixed: true, shows: expires, workers: 1,
		serves: true,
		drain:  map[string]string{"FALLBACK_MAX_AGE": "1s", "FALLBACK_STALE": "drop"},
	},
}, blamed)

// within is a time up to most, by the seed.
func (r *rig) within(most time.Duration) time.Duration {
	return time.Duration(r.rand.Int64N(int64(most)))
}

// killWorker kills the worker at any moment, and the last time while the primary has a request of it in hand, of which
// it gets a copy afterwards. It leaves it killed.
func killWorker(ctx context.Context, r *rig) error {
	w := r.outlet.workers[0]
	for range r.strikes - 1 {
		if err := r.nextReplay(ctx); err != nil {
			return err
		}
		time.Sleep(r.within(300 * time.Millisecond))
		w.kill()
		time.Sleep(r.within(100 * time.Millisecond))
		if err := w.start(); err != nil {
			return err
		}
	}
	release, err := r.outlet.hold(ctx, 0)
	if err != nil {
		return err
	}
	time.Sleep(r.within(100 * time.Millisecond))
	w.kill()
	release()
	return nil
}

// killBeforeAck lets the worker replay, cuts its way to the broker, and waits until the primary has taken one more
// request and its answer is there; so there is an ack that cannot get through. It leaves the worker killed.
func killBeforeAck(ctx context.Context, r *rig) error {
	o := r.outlet
	w := o.workers[0]
	for i := range r.strikes {
		if i > 0 {
			if err := w.start(); err != nil {
				return err
			}
		}
		time.Sleep(r.within(100 * time.Millisecond))
		err := poll(ctx, "a replay behind a cut connection", func() (bool, error) {
			o.proxy.set(passing)
			if err := r.nextReplay(ctx); err != nil { // a worker that is still connecting would only time out
				return false, err
			}
			// requests go in step with the polls, and none might ever be under way at one
			time.Sleep(r.within(2 * primaryTime))
			o.proxy.set(blackHole)
			_, before := r.ledger.progress()
			time.Sleep(50*time.Millisecond + primaryTime)
			_, now := r.ledger.progress()
			return now > before, nil
		})
		time.Sleep(2 * primaryTime)
		w.kill()
		o.proxy.reset()
		o.proxy.set(passing)
		if err != nil {
			return err
		}
		o.kills++
	}
	return nil
}

// nextReplay waits until the primary gets one more request.
func (r *rig) nextReplay(ctx context.Context) error {
	_, before := r.ledger.progress()
	return poll(ctx, "the next replay", func() (bool, error) {
		_, now := r.ledger.progress()
		return now > before, nil
	})
}

// flap leaves the primary up. It goes on until a worker has met it down.
func flap(_ context.Context, r *rig) error {
	before := r.outlet.replays().waits
	for i := 0; i < r.strikes || i < 10*r.strikes && len(r.outlet.workers) > 0 &&
		r.outlet.replays().waits == before; i++ {
		r.outlet.primary.Down()
		time.Sleep(100*time.Millisecond + r.within(300*time.Millisecond))
		r.outlet.up()
		time.Sleep(100*time.Millisecond + r.within(300*time.Millisecond))
	}
	return nil
}

// swallowMoves throws away what the broker says once the worker has its connection for moves and while the primary has
// a request that it will fail at: the confirm of its move is lost.
func swallowMoves(ctx context.Context, r *rig) error {
	o := r.outlet
	o.some(4, harness.Answer{Status: http.StatusInternalServerError, After: primaryTime})
	moved := o.again.Load()
	if err := poll(ctx, "a request that was moved to come back",
		func() (bool, error) { return o.again.Load() > moved, nil }); err != nil {
		return err
	}
	arrived, swallowing := make(chan struct{}, 1), make(chan struct{})
	fail := func(harness.Received) harness.Answer {
		select {
		case arrived <- struct{}{}:
		default:
		}
		return harness.Answer{Status: http.StatusInternalServerError, Until: swallowing}
	}
	o.answer.Store(&fail)
	defer close(swallowing)
	select {
	case <-arrived:
	case <-ctx.Done():
	}
	o.proxy.swallow()
	return ctx.Err()
}

// downWhenIdle takes the primary away when nothing is in flight: what it takes without an answer may expire all the
// same, and how many of those there are nobody could say.
func downWhenIdle(ctx context.Context, r *rig) error {
	r.load.pause()
	defer r.load.resume()
	if err := poll(ctx, "the worker to be idle", func() (bool, error) {
		open, _ := r.ledger.progress()
		return open <= r.outlet.replays().expired && r.outlet.primary.Pending() == 0, nil
	}); err != nil {
		return err
	}
	time.Sleep(10 * primaryTime) // until the worker has read the last answer
	r.outlet.primary.Down()
	return nil
}

func answering(oneIn int, answer harness.Answer) func(context.Context, *rig) error {
	return func(_ context.Context, r *rig) error {
		r.outlet.some(oneIn, answer)
		return nil
	}
}

// answersWell ends what answering began, when there was such an answer: by chance, there may have been none so far.
func answersWell(ctx context.Context, r *rig) error {
	return answersWellAfter(ctx, r, 1)
}

// answersWellAfter waits until the primary has given its other answer so often.
func answersWellAfter(ctx context.Context, r *rig, n int64) error {
	defer r.outlet.answer.Store(nil)
	return poll(ctx, "the primary's other answer", func() (bool, error) { return r.outlet.given.Load() >= n, nil })
}
