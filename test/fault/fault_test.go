//go:build e2e

package fault

import (
	"testing"
	"time"

	"fallback/test/harness"
)

// lane bounds how many short tests go on at the same time, each in a virtual host of its own. Those on the way in keep
// two cores busy, those with a drain mostly wait.
type lane chan struct{}

func lanes(n int) lane { return make(lane, n) }

// enter waits for a place, which is given back when the test ends. In the long run there are no others.
func (l lane) enter(t *testing.T) {
	if wanted == 0 {
		t.Parallel()
		l <- struct{}{}
		t.Cleanup(func() { <-l })
	}
}

// TestFaults does a short round of each fault between the client and the queue. With FAULT_ACKNOWLEDGED it goes on
// until as many requests were accepted, over the whole list and one fault at a time.
func TestFaults(t *testing.T) {
	p := pace{timeout: 2 * time.Second, warm: 500 * time.Millisecond, after: 500 * time.Millisecond}
	if wanted > 0 {
		p = pace{timeout: 5 * time.Second, warm: 3 * time.Second, after: 3 * time.Second, longest: 2 * time.Minute}
	}
	idle := idleGoroutines(t, broker, p.timeout)
	beside, wide := lanes(2), lanes(1)
	for i, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			p := p
			if wanted > 0 { // what is still missing, in equal parts
				if i == len(faults)-1 {
					p.longest = 15 * time.Minute // the last makes up for those that were slow
				}
				p.acknowledged = max(1, (wanted-results.acknowledged()+len(faults)-i-1)/(len(faults)-i))
			}
			try(t, f, p, idle, beside, wide)
		})
	}
	if results.acknowledged() < wanted {
		t.Errorf("%d acknowledged, want %d", results.acknowledged(), wanted)
	}
}

// TestReplays does the same for the faults between the queue and the primary: load goes on, and what was accepted is
// delivered, parked or expired. With FAULT_ACKNOWLEDGED it is one fault at a time, too, and a hundredth of the
// requests for each.
func TestReplays(t *testing.T) {
	p := pace{timeout: 2 * time.Second, warm: 500 * time.Millisecond, after: 300 * time.Millisecond, strikes: 3}
	if wanted > 0 {
		p = pace{
			timeout: 5 * time.Second, warm: 2 * time.Second, after: 2 * time.Second, strikes: 10,
			acknowledged: max(1, wanted/100), longest: time.Minute,
		}
	}
	idle := idleGoroutines(t, broker, p.timeout)
	beside, wide := lanes(4), lanes(1)
	t.Run("primary with a limit", func(t *testing.T) { replayToLimit(t, beside) }) // it takes longest
	for _, f := range replayed {
		t.Run(f.name, func(t *testing.T) { try(t, f, p, idle, beside, wide) })
	}
}

// try does rounds of one fault and takes in what they came to. Faults that are a whole broker's strike another one,
// one after the other.
func try(t *testing.T, f fault, p pace, idle int, beside, wide lane) {
	if f.absent {
		t.Skip("this RabbitMQ has no such fault")
	}
	broker := broker
	if f.wide {
		broker, beside = struck, wide
	}
	beside.enter(t)
	begin := time.Now()
	r := result{Fault: f.name, About: f.about, Seed: seed, Deadline: harness.Millis(p.timeout), Failures: []string{}}
	t.Cleanup(func() { // the last one but for the lane, after what the rig's own have to say
		conclude(t, &r)
		if err := results.add(r); err != nil {
			t.Error(err)
		}
	})
	run(t, broker, f, seed, p, idle, &r)
	t.Logf("%.1f s, %d rounds: %d acknowledged, %d lost, %d corrupt, %d duplicated, %d undetermined (%d found), %d "+
		"unanswered, slowest answer %.0f ms, recovery %.0f ms, %v",
		time.Since(begin).Seconds(), r.Rounds, r.Acknowledged, r.Lost, r.Corrupt, r.Duplicated, r.Undetermined, r.Found,
		r.Unanswered, r.Slowest, r.Recovery, r.Answers)
	if f.workers > 0 {
		t.Logf("%d delivered, %d parked, %d expired; next replay after %.0f ms, drained after %.0f ms", r.Delivered,
			r.Parked, r.Expired, r.Replay, r.Drained)
	}
}

// conclude fails the test for what the result says, and the result for what else the test says.
func conclude(t *testing.T, r *result) {
	t.Helper()
	for _, failure := range r.Failures {
		t.Error(failure)
	}
	if t.Failed() && len(r.Failures) == 0 {
		r.fail("the test failed before or after its rounds; its log says why")
	}
	if t.Failed() {
		t.Error(again(t))
	}
}
