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
// each of them may be refused once in it, and accepted by the next request, and answers may overtake each other. Where
// it met one request alone, nothing tells it from that one's own fault. A loop is no matter of any request.
func TestMoment(t *testing.T) {
	t.Parallel()
	for name, closed := range map[string]target.Verdict{
		"404": says(404, 0), "loop": {Action: target.Refuse, Status: 202, Loop: true, Reason: "a loop"},
	} {
		for _, senders := range []int{1, 4, 64} {
			for _, lasts := range []time.Duration{50 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond,
				1100 * time.Millisecond, 2 * time.Second, 6 * time.Second} {
				const seeds = 4
				parked, worlds, lost := 0, 0, 0
				for seed := range uint64(seeds) {
					spread := []time.Duration{1, 20 * takes}[seed%2] // of how long the answers take
					synctest.Test(t, func(t *testing.T) {
						chosen := rand.New(rand.NewPCG(seed, 1))
						w := newWorld()
						for range 2000 {
							w.put(1, "a", fmt.Sprint("good", chosen.IntN(senders)))
						}
						refused := 0
						begin := time.Duration(chosen.Int64N(int64(time.Second)))
						w.answer = func(*parcel) (target.Verdict, time.Duration) {
							takes := takes + rand.N(spread)
							if at := time.Since(w.began); at > begin && at < begin+lasts {
								refused++
								return closed, takes
							}
							return says(200, 0), takes
						}
						w.work(t, time.Hour)
						lost += w.lost()
						if len(w.parked) > 0 && refused > 1 {
							parked += len(w.parked)
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
