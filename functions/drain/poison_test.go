package drain

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/target"
)

// TestPoisonInARow holds that requests which fail for their own sake, however many come one after the other, are passed:
// each is sent once, and costs one pause at most, of five seconds at most, from the fifth on. Shorter ones would use up
// the attempts of all that waits when a primary is alive and fails at everything, see TestBreaker.
func TestPoisonInARow(t *testing.T) {
	t.Parallel()
	for _, poison := range []int{4, 6, 20, 100} {
		t.Run(strconv.Itoa(poison), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q, p := newMemory(poison+20), &primary{takes: 10 * time.Millisecond}
				p.send = func(id string, _ int) target.Verdict {
					if n, _ := strconv.Atoi(id); n < poison {
						return failed
					}
					return done
				}
				r := New(options(), q, p).Once(context.Background(), Budget{Time: time.Hour})
				if r.Delivered != 20 || r.Retried != poison || len(p.got) != poison+20 {
					t.Errorf("%d were sent, got %+v", len(p.got), r)
				}
				pauses := max(0, poison-failuresInRow+1)
				if most := time.Duration(pauses)*longestWait + 2*time.Second; r.Pauses > pauses || r.Seconds > most.Seconds() {
					t.Errorf("%d pauses, want %d; %.0f s, want %s at most", r.Pauses, pauses, r.Seconds, most)
				}
				t.Logf("%d that fail are passed after %.1f s", poison, r.Seconds)
			})
		})
	}
}
