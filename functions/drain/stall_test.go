package drain

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/target"
)

// TestLongRetryAfterStallsNothing holds that one request which makes the primary ask for a long wait does not keep the
// rest from being sent: neither in a worker, nor in processes of one run each, nor when the budget is one request. It
// is no attempt of it.
func TestLongRetryAfterStallsNothing(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		after  time.Duration
		budget Budget
		anew   bool // each run is a process
		within int  // runs
	}{
		{"once, as long as the window", time.Minute, Budget{Time: time.Minute}, true, 3},
		{"a worker, as long as the window", time.Hour, Budget{Time: time.Hour}, false, 3},
		{"a worker, many windows", time.Hour, Budget{Time: time.Minute}, false, 65},
		{"a worker, in its window", 10 * time.Minute, Budget{Time: time.Hour}, false, 2},
		{"one request at a time", time.Second, Budget{Time: time.Minute, Requests: 1}, false, 7},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q, p := newMemory(6), &primary{takes: time.Millisecond}
				p.send = func(id string, _ int) target.Verdict {
					if id == "0" {
						v := paused
						v.After = row.after
						return v
					}
					return done
				}
				q.ready[0].attempts = 3
				d := New(options(), q, p)
				var delivered int
				for range row.within {
					if row.anew {
						d = New(options(), q, p)
					}
					r := d.Once(context.Background(), row.budget)
					delivered += r.Delivered
					if r.Retried+r.Parked != 0 {
						t.Errorf("got %+v", r)
					}
				}
				var aside []*message
				for _, name := range []string{"10s", "1m", "10m"} {
					aside = append(aside, q.queues[name]...)
				}
				if delivered != 5 || len(aside) != 1 || aside[0].request.ID != "0" ||
					aside[0].headers[HeaderAttempt] != int64(3) {
					t.Errorf("%d delivered, want 5; %d aside; sent %v", delivered, len(aside), p.got)
				}
				if q.inHand != 0 || len(slices.DeleteFunc(slices.Clone(p.got),
					func(id string) bool { return id != "0" })) > 2 {
					t.Errorf("%d in hand, sent %v", q.inHand, p.got)
				}
			})
		})
	}
}

// TestNotInHandForLong holds that nothing is in hand for longer than the broker allows: neither a suspect while the
// primary is down for hours, nor one during a long wait of another, nor what no queue would have while the rest is
// sent.
func TestNotInHandForLong(t *testing.T) {
	t.Parallel()
	const most = longestUnacked + 10*time.Second
	t.Run("the primary is down", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			q, p := newMemory(6), &primary{takes: time.Millisecond}
			p.probe = func() bool { return len(p.got) < 2 }
			p.send = func(string, int) target.Verdict { return paused }
			New(options(), q, p).Once(context.Background(), Budget{Time: 2 * time.Hour})
			if len(p.got) < 2 || q.longest > most {
				t.Errorf("sent %v, in hand for %s", p.got, q.longest)
			}
		})
	})
	t.Run("another asks for long", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			q, p := newMemory(6), &primary{takes: time.Millisecond}
			p.send = func(id string, _ int) target.Verdict {
				v := paused
				if id != "0" {
					v.After = time.Hour
				}
				return v
			}
			New(options(), q, p).Once(context.Background(), Budget{Time: 90 * time.Minute})
			if !slices.Contains(p.got, "1") || q.longest > most {
				t.Errorf("sent %v, in hand for %s", p.got, q.longest)
			}
		})
	})
	t.Run("no room", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			q, p := newMemory(300), &primary{takes: 10 * time.Second}
			p.send = func(id string, _ int) target.Verdict {
				if id == "0" {
					return no
				}
				return done
			}
			q.full = map[string]bool{"parked": true, "10s": true, "1m": true, "10m": true}
			o := options()
			o.Concurrency = 1
			r := New(o, q, p).Once(context.Background(), Budget{Time: 2 * time.Hour})
			if r.Delivered != 299 || q.longest > most+20*time.Second {
				t.Errorf("got %+v, in hand for %s", r, q.longest)
			}
		})
	})
}

// TestHeldIsNotSentAgain holds that requests which no queue would have are sent once, however many runs meet them,
// that they do not keep those behind them from being sent, and that they are moved as soon as they can be; and that
// one which an operator redrives is sent again.
func TestHeldIsNotSentAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const refused = 96
		q, p := newMemory(refused+20), &primary{takes: time.Millisecond}
		p.send = func(id string, _ int) target.Verdict {
			switch n, _ := strconv.Atoi(id); {
			case n < refused/2:
				return no
			case n < refused:
				return failed
			}
			return done
		}
		q.full = map[string]bool{"parked": true, "10s": true, "1m": true, "10m": true}
		d := New(options(), q, p)
		var delivered int
		for range 6 {
			delivered += d.Once(context.Background(), Budget{Time: time.Minute}).Delivered
		}
		if delivered != 20 || len(p.got) > refused+20 {
			t.Errorf("%d delivered, want 20; %d sent, want %d at most", delivered, len(p.got), refused+20)
		}
		q.full = map[string]bool{}
		r := d.Once(context.Background(), Budget{Time: time.Minute})
		if r.Parked+r.Retried != refused || len(p.got) != refused+20 || len(q.ready) != 0 || q.inHand != 0 {
			t.Errorf("when there is room: got %+v, %d sent", r, len(p.got))
		}
		if h := q.queues["parked"][0].headers; h[HeaderStatus] != int64(422) || h[HeaderAttempt] != int64(1) {
			t.Errorf("parked with %v", h)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(1), &primary{send: func(string, int) target.Verdict { return no }}
		q.full = map[string]bool{"parked": true, "10s": true, "1m": true, "10m": true}
		d := New(options(), q, p)
		d.Once(context.Background(), Budget{Time: time.Minute})
		q.ready[0].redriven = time.Now() // another worker has parked it meanwhile
		d.Once(context.Background(), Budget{Time: time.Minute})
		if len(p.got) != 2 {
			t.Errorf("sent %d times, want 2", len(p.got))
		}
	})
}

// TestGivenBackWhenLost holds that what is unacked goes back when the queue cannot be asked, since the channel that it
// came by may live on.
func TestGivenBackWhenLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := newMemory(1), &primary{send: func(string, int) target.Verdict { return no }}
		q.full = map[string]bool{"parked": true, "10s": true, "1m": true, "10m": true}
		New(options(), &forbidden{memory: q}, p).Once(context.Background(), Budget{Time: 10 * time.Second})
		if len(p.got) != 1 || q.inHand != 0 || len(q.ready) != 1 {
			t.Errorf("%d sent, %d in hand, %d ready", len(p.got), q.inHand, len(q.ready))
		}
	})
}

// forbidden is a queue that may be asked once how many wait.
type forbidden struct {
	*memory
	asked int
}

func (q *forbidden) Waiting(ctx context.Context) (int, error) {
	if q.asked++; q.asked > 1 {
		return 0, errors.New("access refused")
	}
	return q.memory.Waiting(ctx)
}
