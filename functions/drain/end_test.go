package drain

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/envelope"
	"fallback/functions/target"
)

// mute is a primary that never answers a request, and a broker that does not either once the run is to end.
type mute struct {
	*memory
	stopped bool // it takes no more calls
}

func (m *mute) Probe(context.Context) (bool, target.Verdict) { return true, target.Verdict{} }

func (m *mute) Send(ctx context.Context, _ *envelope.Request, _ target.Try) target.Verdict {
	<-ctx.Done()
	return target.Verdict{Action: target.Pause, Reason: "the drain ended before the answer came"}
}

func (m *mute) Stop(ctx context.Context) error {
	if !m.stopped {
		return m.memory.Stop(ctx)
	}
	<-ctx.Done()
	return ctx.Err()
}

func (m *mute) Left(ctx context.Context, enough int) (int, error) {
	if !m.stopped {
		return m.memory.Left(ctx, enough)
	}
	<-ctx.Done()
	return 0, ctx.Err()
}

// TestEndBesideAnOutage holds that a run which ends while the queue is looked at settles what is in flight all the
// same: the connection by which it came is not cut.
func TestEndBesideAnOutage(t *testing.T) {
	t.Parallel()
	for ends := 250 * time.Millisecond; ends < 400*time.Millisecond; ends += 5 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.put(20, "quick", "good") // then several are in flight
			w.put(1, "slow", "good")
			w.put(1, "bad", "bad")
			w.probe = func() (bool, target.Verdict) { return len(w.sent) == 0, says(0, 0) }
			w.answer = func(m *parcel) (target.Verdict, time.Duration) {
				switch m.request.Target {
				case "/slow":
					return says(200, 0), 5 * time.Second
				case "/bad":
					return says(0, 0), takes
				}
				return says(200, 0), takes
			}
			s := w.session()
			ctx, cancel := context.WithTimeout(t.Context(), ends)
			defer cancel()
			r := New(w.options(), s, s).Once(ctx, Budget{})
			if r.Delivered != 21 || len(w.ready) > 1 {
				t.Errorf("ended after %s: got %+v: %s", ends, r, w)
			}
		})
	}
}

// TestCutOff holds that a run whose ctx ends is over within the grace whatever hangs, and that a request which was cut
// off goes back without an attempt, and without suspicion: neither now nor, in a process that goes on, in the next
// runs.
func TestCutOff(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name     string
		silent   bool // the broker
		waiting  int
		atLeast  time.Duration
		returned int
	}{
		{"the primary hangs", false, 3, lastAnswers, 3},
		{"the broker hangs, too", true, -1, lastAnswers + wrapUpTime, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := &mute{memory: newMemory(3), stopped: row.silent}
				d := New(options(), m, m)
				for range 10 {
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					begin := time.Now()
					r := d.Once(ctx, Budget{Time: 30 * time.Second})
					cancel()
					if took := time.Since(begin) - time.Minute; took < row.atLeast || took > Grace {
						t.Errorf("it went on for %s after its end, want %s to %s", took, row.atLeast, Grace)
					}
					if r.Returned != row.returned || r.Retried+r.Parked+r.Held+r.Delivered != 0 ||
						r.Waiting != row.waiting || r.End != "its time is over" {
						t.Errorf("got %+v", r)
					}
				}
				if m.inHand != 0 {
					t.Errorf("%d are with us", m.inHand)
				}
			})
		})
	}
}

// TestMovedAtTheEnd holds that a request which has used up its time just before it would have been cut off is still
// moved.
func TestMovedAtTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newMemory(1)
		p := &primary{takes: 10*time.Second + lastAnswers - time.Millisecond,
			send: func(string, int) target.Verdict { return failed }}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		strict := &strictMover{q}
		if r := New(options(), strict, p).Once(ctx, Budget{}); r.Retried != 1 || r.Held != 0 {
			t.Errorf("got %+v", r)
		}
	})
}

// strictMover is a queue whose deliveries are not moved when their context has ended.
type strictMover struct{ *memory }

func (q *strictMover) Next(ctx context.Context) (Delivery, error) {
	d, err := q.memory.Next(ctx)
	if err != nil {
		return nil, err
	}
	return strictDelivery{d}, nil
}

type strictDelivery struct{ Delivery }

func (d strictDelivery) Move(ctx context.Context, queue string, headers map[string]any) error {
	time.Sleep(100 * time.Millisecond)
	if ctx.Err() != nil {
		return errors.New("too late")
	}
	return d.Delivery.Move(ctx, queue, headers)
}

// deaf is a primary, or a broker, that does not even hear when it is told to stop.
type deaf struct {
	*memory
	send, probe, next bool
}

func (d *deaf) Probe(context.Context) (bool, target.Verdict) {
	if d.probe {
		time.Sleep(time.Hour)
	}
	return true, target.Verdict{}
}

func (d *deaf) Send(context.Context, *envelope.Request, target.Try) target.Verdict {
	if d.send {
		time.Sleep(time.Hour)
	}
	return done
}

func (d *deaf) Next(ctx context.Context) (Delivery, error) {
	if d.next {
		time.Sleep(time.Hour)
	}
	return d.memory.Next(ctx)
}

// TestNoEnd holds that a run ends with its budget, and with the process, whatever does not: every wait has a bound of
// the drain's own.
func TestNoEnd(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		deaf deaf
	}{{"a replay", deaf{send: true}}, {"a probe", deaf{probe: true}}, {"the broker", deaf{next: true}}} {
		for _, end := range []struct {
			name   string
			window time.Duration
			within time.Duration // after it
		}{{"the budget's", time.Minute, time.Minute}, {"the process's", 0, Grace}} {
			t.Run(row.name+", "+end.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					d := row.deaf
					d.memory = newMemory(3)
					o := options()
					o.Timeout = 30 * time.Second
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					budget := Budget{Time: end.window}
					if end.window > 0 {
						ctx = t.Context()
					}
					begin := time.Now()
					drainer := New(o, &d, &d)
					r := drainer.Once(ctx, budget)
					if took := time.Since(begin); took > time.Minute+end.within {
						t.Errorf("it took %s: %+v", took, r)
					}
					drainer.Close()
					time.Sleep(2 * time.Hour) // what had no end has one
				})
			})
		}
	}
}
