package drain

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/target"
)

// TestLostBesideHanging holds that a request which hangs keeps nothing waiting for longer than others take when the
// source is lost beside it.
func TestLostBesideHanging(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put(1, "a", "bad")
		w.put(200, "a", "good")
		w.answer = func(m *parcel) (target.Verdict, time.Duration) {
			if strings.Contains(m.id, "bad") {
				return says(500, 0), 10 * time.Minute
			}
			return says(200, 0), 100 * time.Millisecond
		}
		s := w.session()
		time.AfterFunc(500*time.Millisecond, s.lose)
		New(w.options(), s, s).Once(t.Context(), Budget{Time: time.Hour})
		if at := w.lastGood(); at > time.Minute {
			t.Errorf("the last good one after %s: %s", at, w)
		}
	})
}

// TestLost holds that a request which was answered, or is being, when the source is lost is not sent again when it
// comes again.
func TestLost(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		takes time.Duration // an answer
		lose  time.Duration // after the beginning
		acked bool          // the acks are not heard
		sends int           // at most
	}{
		{"in flight", 10 * time.Second, 15 * time.Second, false, 20},
		{"acks on their way", time.Millisecond, 15 * time.Millisecond, true, 20},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.put(20, "a", "good")
				w.deaf = row.acked
				w.answer = func(*parcel) (target.Verdict, time.Duration) { return says(200, 0), row.takes }
				s := w.session()
				time.AfterFunc(row.lose, s.lose)
				r := New(w.options(), s, s).Once(t.Context(), Budget{Time: time.Hour})
				w.mu.Lock()
				sent, delivered, left := len(w.sent), len(w.delivered), len(w.ready)+len(w.unacked)
				w.mu.Unlock()
				if sent > row.sends || delivered != 20 || left > 0 || r.Delivered != 20 {
					t.Errorf("got %+v: %s", r, w)
				}
			})
		})
	}
}

// TestUnconfirmedMove holds that a request which may be on a queue already is moved to no other.
func TestUnconfirmedMove(t *testing.T) {
	t.Parallel()
	for status, queue := range map[int]string{500: "10s", 422: "parked"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.put(1, "a", "good")
			w.late = 1
			w.answer = func(m *parcel) (target.Verdict, time.Duration) {
				if m.headers == nil {
					return says(status, 0), takes
				}
				return says(200, 0), takes
			}
			s := w.session()
			New(w.options(), s, s).Once(t.Context(), Budget{Time: time.Second})
			for name, n := range w.retries {
				if n > 0 && name != queue {
					t.Errorf("after a %d, %d on %s: %s", status, n, name, w)
				}
			}
			w.work(t, time.Hour)
			if len(w.sent) > 4 || len(w.parked) > 2 || w.lost() > 0 {
				t.Errorf("after a %d: %s", status, w)
			}
		})
	}
}

// TestLostAndAsked holds that what a worker remembers of a request that it has lost does not outdo what another has
// heard of it meanwhile.
func TestLostAndAsked(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		takes time.Duration // the first answer
		lose  time.Duration // after the beginning
	}{
		"answered":  {10 * time.Millisecond, 10*time.Millisecond + 500*time.Microsecond}, // and being moved
		"in flight": {20 * time.Second, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.put(1, "a", "good")
				const asked = 70 * time.Second
				m := w.ready[0]
				w.answer = func(m *parcel) (target.Verdict, time.Duration) {
					if m.sends == 1 {
						return says(413, 15*time.Second), row.takes
					}
					return says(200, 0), time.Millisecond
				}
				s := w.session()
				time.AfterFunc(row.lose, func() {
					w.mu.Lock()
					m.headers = map[string]any{HeaderAsides: 1, HeaderNotBefore: stamp(w.began.Add(asked))}
					w.mu.Unlock()
					s.lose()
				})
				worker := New(w.options(), s, s)
				for range 6 {
					worker.Once(t.Context(), Budget{Time: time.Minute})
					time.Sleep(30 * time.Second)
				}
				if len(w.sent) != 2 || w.sent[1].at < asked {
					t.Errorf("sent at %v, want it sent again after %s: %s", w.sent, asked, w)
				}
			})
		})
	}
}

// TestCopied holds that a request which is on a retry queue when the connection is lost, and still on its own, is sent
// once: it is taken off its own when it comes again, whether it was answered before or not.
func TestCopied(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		status  int
		returns int // it has come back as often: it is set aside, unsent
		sends   int
	}{
		{"answered", 500, 0, 2},
		{"asked to wait", 429, 0, 2},
		{"unsent", 200, mostReturns, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.put(1, "a", "good")
				w.ready[0].returns, w.slow = row.returns, true
				w.answer = func(m *parcel) (target.Verdict, time.Duration) {
					if m.sends == 1 && row.status != 200 {
						return says(row.status, 0), 10 * time.Millisecond
					}
					return says(200, 0), time.Millisecond
				}
				s := w.session()
				go func() {
					for moved := false; !moved; time.Sleep(100 * time.Microsecond) {
						w.mu.Lock()
						moved = w.moves > 0
						w.mu.Unlock()
					}
					s.lose()
				}()
				worker := New(w.options(), s, s)
				for range 6 {
					worker.Once(t.Context(), Budget{Time: time.Minute})
					time.Sleep(30 * time.Second)
				}
				if len(w.sent) != row.sends || w.left() != 0 {
					t.Errorf("sent %d times, want %d: %s", len(w.sent), row.sends, w)
				}
			})
		})
	}
}
