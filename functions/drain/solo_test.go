package drain

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/target"
)

// TestSuspect holds when a message that came back is replayed alone, and when that is taken for an attempt.
func TestSuspect(t *testing.T) {
	t.Parallel()
	none := fate(-1)
	for _, row := range []struct {
		name     string
		alone    bool
		returns  int
		met      bool // one that is to be replayed alone, since the process began
		returned int  // how often the process may have given a message back
		solos    int  // that went well
		want     fate
	}{
		{"came back twice", false, mostReturns - 1, false, 0, 0, none},
		{"came back three times", false, mostReturns, false, 0, 0, aside},
		{"one of the three times may be for what we did", false, mostReturns, false, 1, 0, none},
		{"came back three times, and once for what we did", false, mostReturns + 1, false, 1, 0, aside},
		{"three such went well: it is how the broker counts", false, 10 * mostReturns, true, 0, mostSolos, none},
		{"alone for the first time", true, 0, false, 0, 0, none},
		{"it came back once, maybe from beside others", true, soloReturns - 1, false, 0, 0, none},
		{"it came back from that, and the process is another", true, soloReturns, false, 0, 0, retry},
		{"it came back, and the process is the same: it was requeued", true, soloReturns, true, 1, 0, none},
		{"it came back often, and the process is the same", true, mostReturns + 1, true, 1, 0, retry},
		{"it came back often, and three such went well", true, mostReturns + 1, true, 1, mostSolos, none},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := &run{Drainer: &Drainer{met: row.met, returned: row.returned, solos: row.solos}}
			it := &item{marks: marks{alone: row.alone, returns: row.returns}}
			got, ok := r.ruleSuspect(it)
			if !ok {
				got.fate = none
			}
			if got.fate != row.want || row.want == aside && !it.alone {
				t.Errorf("got %v, alone %t, want %v", got.fate, it.alone, row.want)
			}
		})
	}
}

// TestSleeps holds that the loop sleeps while nothing but an event can change anything.
func TestSleeps(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, set := range map[string]func(*run){
		"a refusal waits, and more may come": func(r *run) {
			r.judge.suspended = []*item{{verdict: says(404, 0), heard: now.Add(-shortestSuspended - 500*time.Millisecond)}}
		},
		"a pause waits, while the primary is probed": func(r *run) {
			r.judge.suspended = []*item{{verdict: says(503, 0), heard: now.Add(-longestSuspended - time.Second)}}
			r.judge.outage, r.knocking = outage{on: true, since: now}, true
		},
		"one alone is in flight": func(r *run) {
			r.pace.limit = 8
			r.solo = &item{sent: now.Add(-time.Second), overdue: true}
			r.flying = []*item{r.solo}
		},
		"one is to be alone, and another is in flight": func(r *run) {
			r.pace.limit = 8
			r.solo, r.flying = &item{}, []*item{{sent: now.Add(-time.Second), overdue: true}}
		},
	} {
		r := newRun(New(Options{Concurrency: 8}, nil, nil), limits{window: t.Context()}, 0)
		r.feeder.next = now.Add(time.Hour)
		set(r)
		if _, next := r.steer(now); next.Sub(now) < 100*time.Millisecond {
			t.Errorf("%s: it looks again after %s", name, next.Sub(now))
		}
	}
}

// TestWakes holds that the loop wakes when one in flight becomes late: on trial, another may be sent then, and nothing
// else would happen.
func TestWakes(t *testing.T) {
	t.Parallel()
	for _, usual := range []time.Duration{10 * time.Millisecond, 300 * time.Millisecond, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.put(20, "a", "good")
			w.put(1, "lost", "good")
			w.put(1, "hangs", "good")
			w.put(1, "b", "good")
			w.answer = func(m *parcel) (target.Verdict, time.Duration) {
				switch {
				case m.request.Target == "/hangs":
					return says(200, 0), 30 * time.Second
				case m.request.Target == "/lost" && m.sends == 1:
					return says(0, 0), usual
				}
				return says(200, 0), usual
			}
			o := w.options()
			o.Concurrency = 1
			s := w.session()
			New(o, s, s).Once(t.Context(), Budget{Time: 2 * time.Minute})
			late := w.delivered["b-good-22"] - w.sentAt("hangs-good-21")
			if late <= 0 || late > 4*usual+3*time.Second {
				t.Errorf("%s usually: the next was delivered %s after the one that hangs was sent: %s", usual, late, w)
			}
		})
	}
}

// TestCareful holds that after a loss with something unacked one is taken at a time, until those are settled, and that
// the wait for the next try grows.
func TestCareful(t *testing.T) {
	t.Parallel()
	r := newRun(New(Options{Concurrency: 8}, nil, nil), limits{}, 0)
	if r.want() != 8+lookahead {
		t.Errorf("before: %d are taken", r.want())
	}
	r.feeder.unacked = 3
	r.lose()
	if r.careful != 4 || r.want() != 1 {
		t.Errorf("after: %d are taken at a time, until %d are settled; want 1, and 4", r.want(), r.careful)
	}
	now := time.Now()
	for i, want := range []time.Duration{200, 400, 800, 1600, 3200, 5000, 5000} {
		r.feeder.lose(now)
		if got := r.feeder.next.Sub(now); got != want*time.Millisecond {
			t.Errorf("loss %d: the next try after %s, want %s", i+1, got, want*time.Millisecond)
		}
	}
}

// TestWalkKeepsItsConsumer holds that a search for a request that the primary accepts, through many that it does not,
// begins no consumer for each of them: those that were on their way to it would be requeued as often.
func TestWalkKeepsItsConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put(500, "a", "bad")
		w.put(1, "b", "good")
		w.answer = func(m *parcel) (target.Verdict, time.Duration) {
			if m.request.Target == "/a" {
				return says(503, 0), takes
			}
			return says(200, 0), takes
		}
		s := w.session()
		New(w.options(), s, s).Once(t.Context(), Budget{Time: 5 * time.Minute})
		if len(w.delivered) != 1 || s.consumer > w.probes*3/2 { // one for each trial
			t.Errorf("%d consumers: %s", s.consumer, w)
		}
	})
}

// TestOwnReturns holds that what the worker itself has given back, or has lost with the connection, makes no message
// suspect, where the broker counts all that: set aside, requests would be late for a restart of the broker.
func TestOwnReturns(t *testing.T) {
	t.Parallel()
	for losses := range 8 {
		for gap := 100 * time.Millisecond; gap < 3*time.Second; gap += 97 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.counts = true
				w.put(500, "a", "good")
				w.answer = func(*parcel) (target.Verdict, time.Duration) { return says(200, 0), 20 * time.Millisecond }
				s := w.session()
				for n := range losses {
					time.AfterFunc(time.Duration(n+1)*gap, s.lose)
				}
				worker := New(w.options(), s, s)
				first := worker.Once(t.Context(), Budget{Time: time.Minute})
				next := worker.Once(t.Context(), Budget{Time: time.Minute}) // an ack may not have been heard
				if first.Aside+next.Aside > 0 || w.left() != 0 {
					t.Errorf("the connection lost %d times, each %s: %d set aside: %s", losses, gap,
						first.Aside+next.Aside, w)
				}
			})
		}
	}
}

// TestDyingWorkers holds that workers which end again and again for a reason of their own park nothing, while they
// deliver anything at all, and that one request which ends them is parked alone.
func TestDyingWorkers(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		lives time.Duration // each worker; 0 for ever
		kills int           // the number of the request that ends them; 0 for none
		most  int           // workers: a new one each five seconds, for as long as all attempts take at most
	}{
		{"every worker ends after some seconds", 5 * time.Second, 0, 2 * 60},
		{"one request ends them", 0, 20, 2000},
		{"both", 15 * time.Second, 20, 2000},
	} {
		for _, counts := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, requeues count: %t", row.name, counts), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld()
					w.counts, w.poison = counts, map[string]*poison{}
					w.put(60, "r", "s")
					want := 60
					if row.kills > 0 {
						want--
						w.poison[fmt.Sprintf("r-s-%d", row.kills)] = &poison{kills: true}
					}
					w.answer = func(*parcel) (target.Verdict, time.Duration) { return says(200, 0), 2 * time.Second }
					most, workers := row.most, 0
					if counts { // none is told from its neighbours
						most = 2000
					}
					for ; workers < most && w.left() > 0; workers++ {
						ctx, cancel := context.WithCancel(t.Context())
						s := w.session()
						s.cancel = cancel
						if row.lives > 0 {
							time.AfterFunc(row.lives, func() { s.die(); cancel() })
						}
						New(w.options(), s, s).Once(ctx, Budget{Time: time.Minute})
						cancel()
						time.Sleep(restart)
					}
					if row.kills == 0 && !counts && w.moves > 0 {
						t.Errorf("%d were set aside: %s", w.moves, w)
					}
					if len(w.delivered) != want || len(w.parked) != 60-want {
						t.Errorf("%d workers, want %d delivered: %s", workers, want, w)
					}
				})
			})
		}
	}
}
