package drain

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/target"
)

// TestMoment holds that an outage of the way parks nothing, however short it is, and however many senders there are:
// each of them may be refused once in it, and accepted by the next request. A loop is no matter of any request.
func TestMoment(t *testing.T) {
	t.Parallel()
	for name, closed := range map[string]target.Verdict{
		"404": says(404, 0), "loop": {Action: target.Refuse, Status: 202, Loop: true, Reason: "a loop"},
	} {
		for _, senders := range []int{1, 4, 64} {
			for _, lasts := range []time.Duration{50 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond,
				1100 * time.Millisecond, 2 * time.Second, 6 * time.Second} {
				const seeds = 2
				parked, worlds, lost := 0, 0, 0
				for seed := range uint64(seeds) {
					synctest.Test(t, func(t *testing.T) {
						chosen := rand.New(rand.NewPCG(seed, 1))
						w := newWorld()
						for range 2000 {
							w.put(1, "a", fmt.Sprint("good", chosen.IntN(senders)))
						}
						begin := time.Duration(chosen.Int64N(int64(time.Second)))
						w.answer = func(*parcel) (target.Verdict, time.Duration) {
							if at := time.Since(w.began); at > begin && at < begin+lasts {
								return closed, takes
							}
							return says(200, 0), takes
						}
						w.work(t, time.Hour)
						parked, lost = parked+len(w.parked), lost+w.lost()
						if len(w.parked) > 0 {
							worlds++
						}
					})
				}
				if parked > 0 || lost > 0 {
					t.Errorf("%s for %s, %d senders: parked in %d of %d worlds, %d requests; %d lost", name, lasts,
						senders, worlds, seeds, parked, lost)
				}
			}
		}
	}
}
