package drain

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/target"
)

// fleeting is a queue that cannot be read while it is away.
type fleeting struct {
	*session
	away func() bool
}

var errAway = errors.New("nobody answers")

func (f fleeting) Waiting(ctx context.Context) (int, error) {
	if f.away() {
		return 0, errAway
	}
	return f.session.Waiting(ctx)
}

// TestTroubleIsOver holds that a primary which was away, and a loop, are told as over when no request tells that they
// are by being accepted: what waited is rejected, or others have taken it.
func TestTroubleIsOver(t *testing.T) {
	t.Parallel()
	loop := target.Verdict{Action: target.Refuse, Status: 202, Loop: true, Reason: "a loop"}
	const lasts = 30 * time.Second
	for _, row := range []struct {
		name    string
		first   target.Verdict // while it lasts
		taken   bool           // by others, when it is over
		trouble Trouble
		within  time.Duration
	}{
		{"away, and what waits is rejected", says(0, 0), false, PrimaryAway, 2 * time.Minute},
		{"away, and others take what waits", says(0, 0), true, PrimaryAway, 13 * time.Minute},
		{"a loop, and what waits is rejected", loop, false, Looping, 3 * time.Minute},
		{"a loop, and others take what waits", loop, true, Looping, 23 * time.Minute},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.put(1, "a", "good")
				lasting := func() bool { return time.Since(w.began) < lasts }
				w.answer = func(*parcel) (target.Verdict, time.Duration) {
					if lasting() {
						return row.first, takes
					}
					return says(422, 0), takes
				}
				w.probe = func() (bool, target.Verdict) { return !row.first.Unreachable || !lasting(), row.first }
				var on bool
				var over time.Duration
				o := w.options()
				o.Tell = func(which Trouble, begins bool) {
					if which == row.trouble {
						on, over = begins, time.Since(w.began)
					}
				}
				s := w.session()
				worker := New(o, s, s)
				for time.Since(w.began) < row.within {
					run := time.Now()
					if row.taken && !lasting() {
						w.mu.Lock()
						w.ready = nil
						w.mu.Unlock()
					}
					worker.Once(t.Context(), Budget{Time: lasts})
					time.Sleep(time.Minute - time.Since(run))
				}
				if over == 0 || on {
					t.Errorf("%s after the beginning: on %t, last told after %s: %s", row.within, on, over, w)
				}
			})
		})
	}
}

// TestTroubleLasts holds that a primary is told as away for as long as requests wait for it, however long it has asked
// them to.
func TestTroubleLasts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put(10, "a", "good")
		w.answer = func(*parcel) (target.Verdict, time.Duration) { return says(503, time.Hour), takes }
		var told []bool
		o := w.options()
		o.Tell = func(which Trouble, on bool) {
			if which == PrimaryAway {
				told = append(told, on)
			}
		}
		s := w.session()
		worker := New(o, s, s)
		for time.Since(w.began) < 3*time.Hour {
			run := time.Now()
			worker.Once(t.Context(), Budget{Time: time.Minute})
			time.Sleep(time.Minute - time.Since(run))
		}
		if !slices.Equal(told, []bool{true}) {
			t.Errorf("told %v: %s", told, w)
		}
	})
}

// TestRejectedInOutage holds that a primary is not told as away for ever when nothing but rejections comes from it after
// an outage.
func TestRejectedInOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put(20, "a", "good")
		w.answer = func(*parcel) (target.Verdict, time.Duration) {
			switch n := len(w.sent); {
			case n <= 10:
				return says(200, 0), takes
			case n <= 30:
				return says(503, 0), takes
			}
			return says(422, 0), takes
		}
		var on bool
		o := w.options()
		o.Tell = func(which Trouble, begins bool) { on = which == PrimaryAway && begins }
		s := w.session()
		worker := New(o, s, s)
		for i := range 90 {
			run := time.Now()
			if i > 20 && i%5 == 0 {
				w.put(1, "a", "good")
			}
			worker.Once(t.Context(), Budget{Time: time.Minute})
			time.Sleep(time.Minute - time.Since(run))
		}
		if on {
			t.Errorf("the primary is told as away: %s", w)
		}
	})
}

// TestTroubles holds that each trouble is told once when it begins, once when it has ended, and no other is.
func TestTroubles(t *testing.T) {
	t.Parallel()
	const lasts = 90 * time.Second
	for _, row := range []struct {
		name    string
		answer  target.Verdict // while it lasts
		away    bool           // the queue is
		full    bool           // all other queues are
		trouble Trouble
	}{
		{"the queue is away", says(200, 0), true, false, QueueAway},
		{"the primary is away", says(0, 0), false, false, PrimaryAway},
		{"the primary refuses everything", says(404, 0), false, false, PrimaryAway},
		{"a loop", target.Verdict{Action: target.Refuse, Status: 202, Loop: true, Reason: "a loop"}, false, false, Looping},
		{"no room", says(422, 0), false, true, NoRoom},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.put(10, "a", "good")
				lasting := func() bool { return time.Since(w.began) < lasts }
				w.answer = func(*parcel) (target.Verdict, time.Duration) {
					if lasting() {
						return row.answer, takes
					}
					return says(200, 0), takes
				}
				w.probe = func() (bool, target.Verdict) { return !row.answer.Unreachable || !lasting(), row.answer }
				if row.full {
					w.most = map[string]int{"parked": 0, "10s": 0, "1m": 0, "10m": 0}
					time.AfterFunc(lasts, func() {
						w.mu.Lock()
						defer w.mu.Unlock()
						clear(w.most)
					})
				}
				o, told := w.options(), map[Trouble][]bool{}
				o.Tell = func(which Trouble, on bool) { told[which] = append(told[which], on) }
				s := w.session()
				worker := New(o, fleeting{s, func() bool { return row.away && lasting() }}, s)
				for range 10 {
					run := time.Now()
					worker.Once(t.Context(), Budget{Time: time.Minute})
					time.Sleep(time.Minute - time.Since(run))
				}
				if !slices.Equal(told[row.trouble], []bool{true, false}) {
					t.Errorf("told %v, want it once on and once off: %s", told, w)
				}
				for _, other := range Troubles() {
					if other != row.trouble && other != PrimaryAway && len(told[other]) > 0 {
						t.Errorf("told %v of %s: %s", told[other], other, w)
					}
				}
			})
		})
	}
}
