package drain

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/target"
)

// bucket is a primary's limit of a rate: so many a second, and burst at once.
type bucket struct {
	rate, burst float64
	has         float64
	at          time.Time
}

func (b *bucket) take(now time.Time) bool {
	if b.at.IsZero() {
		b.has = b.burst
	} else {
		b.has = min(b.burst, b.has+now.Sub(b.at).Seconds()*b.rate)
	}
	b.at = now
	if b.has < 1 {
		return false
	}
	b.has--
	return true
}

// TestLimitedRate holds that a primary which limits the rate is used well, and is asked little more often than it
// allows.
func TestLimitedRate(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		senders int
		burst   float64
		status  int
		after   time.Duration
		used    float64 // of what the limit allows
		refused float64 // of the sends
	}{
		{"20 senders, bucket of 1", 20, 1, 429, 0, 0.6, 0.2},
		{"20 senders, bucket of 10", 20, 10, 429, 0, 0.8, 0.2},
		{"20 senders, bucket of 50", 20, 50, 429, 0, 0.8, 0.2},
		{"20 senders, bucket of 50, 1 s", 20, 50, 429, time.Second, 0.8, 0.2},
		{"20 senders, bucket of 50, 503 with 1 s", 20, 50, 503, time.Second, 0.8, 0.2},
		{"one sender, bucket of 1", 1, 1, 429, 0, 0.6, 0.2},
		{"one sender, bucket of 50", 1, 50, 429, 0, 0.8, 0.2},
		{"one sender, bucket of 50, 10 s", 1, 50, 429, 10 * time.Second, 0.6, 0.2},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				const each = 15000
				for i := range each {
					w.put(1, "a", string(rune('a'+i%row.senders)))
				}
				b := &bucket{rate: 50, burst: row.burst}
				refused := 0
				w.answer = func(m *parcel) (target.Verdict, time.Duration) {
					if b.take(time.Now()) {
						return says(200, 0), takes
					}
					refused++
					return says(row.status, row.after), takes
				}
				w.work(t, 5*time.Minute)
				used := float64(len(w.delivered)) / (50 * 300)
				if used < row.used || float64(refused) > row.refused*float64(len(w.sent)) || len(w.parked) > 0 ||
					w.early > 0 {
					t.Errorf("%.2f of the limit, %d refused", used, refused)
				}
				t.Logf("%.2f of the limit, %d refused; %s", used, refused, w)
			})
		})
	}
}

// TestLimitedInWindows holds the same of a primary that takes so many in each second, whoever sends, from one sender,
// whom nobody is behind, to many; and that hardly any are moved for that more than once.
func TestLimitedInWindows(t *testing.T) {
	t.Parallel()
	for _, senders := range []int{1, 2, 16, 1000} {
		t.Run(fmt.Sprint(senders), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const rate, all = 50, 10_000
				w := newWorld()
				for i := range all {
					w.put(1, "a", fmt.Sprint(i%senders))
				}
				var window time.Time
				taken, refused := 0, 0
				w.answer = func(*parcel) (target.Verdict, time.Duration) {
					if now := time.Now(); now.Sub(window) >= time.Second {
						window, taken = now, 0
					}
					if taken == rate {
						refused++
						return says(429, time.Second), takes
					}
					taken++
					return says(200, 0), takes
				}
				s := w.session()
				o := w.options()
				o.Concurrency = 200
				worker := New(o, s, s)
				for w.left() > 0 && time.Since(w.began) < time.Hour {
					worker.Once(t.Context(), Budget{})
					time.Sleep(time.Second)
				}
				took := time.Since(w.began)
				if took > all/rate*time.Second*5/4 || refused > all/50 || w.moves > all*11/10 || w.early > 0 ||
					len(w.delivered) < all {
					t.Errorf("in %s, %d refused: %s", took, refused, w)
				}
			})
		})
	}
}

// TestOneLimited holds that a sender which is limited keeps nobody, and is not kept from what it is allowed.
func TestOneLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for range 3000 {
			w.put(1, "a", "bad")
			w.put(1, "a", "good")
		}
		b := &bucket{rate: 1, burst: 5}
		w.answer = func(m *parcel) (target.Verdict, time.Duration) {
			if strings.HasPrefix(m.id, "a-good") || b.take(time.Now()) {
				return says(200, 0), takes
			}
			return says(429, time.Second), takes
		}
		w.work(t, 4*time.Hour)
		if at := w.lastGood(); at > time.Minute || w.early > 0 || len(w.parked) > 0 || len(w.delivered) < 6000 {
			t.Errorf("the last good one after %s: %s", at, w)
		}
	})
}

// TestOneRouteHangs holds that a route which hangs keeps nobody but itself: others wait no longer than until one answer
// of it is given up, and where twenty senders are in it, for a small multiple of that.
func TestOneRouteHangs(t *testing.T) {
	t.Parallel()
	const hangs = 30 * time.Second
	for senders, longest := range map[int]time.Duration{1: hangs + 5*time.Second, 20: 3 * hangs} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			for i := range 2000 {
				w.put(1, "a", "bad"+string(rune('a'+i%senders)))
				w.put(1, "b", "good")
			}
			w.answer = func(m *parcel) (target.Verdict, time.Duration) {
				if strings.HasPrefix(m.id, "b-good") {
					return says(200, 0), takes
				}
				return target.Verdict{Action: target.Fail, Reason: "no answer within 30s"}, hangs
			}
			w.work(t, time.Hour)
			if at := w.lastGood(); at > longest || w.peak > 2*w.options().Concurrency || w.lost() > 0 {
				t.Errorf("%d senders: the last good one after %s: %s", senders, at, w)
			}
		})
	}
}

// TestFlapping holds what is delivered by a primary that comes and goes.
func TestFlapping(t *testing.T) {
	t.Parallel()
	for _, honest := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.put(4000, "a", "good")
			// and not in step with the runs
			up := func() bool { return time.Since(w.began)%(4100*time.Millisecond) >= 2*time.Second }
			w.answer = func(m *parcel) (target.Verdict, time.Duration) {
				if up() {
					return says(200, 0), 100 * time.Millisecond
				}
				return says(503, 0), takes
			}
			w.probe = func() (bool, target.Verdict) {
				return up() || !honest, says(503, 0)
			}
			w.work(t, time.Hour)
			if at := w.lastGood(); at > 30*time.Minute || len(w.parked) > 0 || w.lost() > 0 {
				t.Errorf("an honest probe: %t; the last one after %s: %s", honest, at, w)
			}
		})
	}
}
