//go:build e2e

package fault

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// lanes is how many faults of a short round go on at the same time, each in a virtual host of its own.
const lanes = 2

// TestFaults does a short round of each fault. With FAULT_ACKNOWLEDGED it goes on until as many requests were accepted,
// over the whole list and one fault at a time, and with FAULT_RESULTS it writes results.json and RESULTS.md to that folder.
func TestFaults(t *testing.T) {
	p := pace{timeout: 2 * time.Second, warm: 500 * time.Millisecond, after: 500 * time.Millisecond}
	wanted := 0
	if given := os.Getenv("FAULT_ACKNOWLEDGED"); given != "" {
		var err error
		if wanted, err = strconv.Atoi(given); err != nil {
			t.Fatalf("FAULT_ACKNOWLEDGED: %v", err)
		}
		p = pace{timeout: 5 * time.Second, warm: 3 * time.Second, after: 3 * time.Second, longest: 2 * time.Minute}
	}
	report, err := newReport(broker, seed, wanted, os.Getenv("FAULT_RESULTS"))
	if err != nil {
		t.Fatal(err)
	}
	idle := idleGoroutines(t, broker, p.timeout)
	lane := make(chan struct{}, lanes)
	for i, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			p := p
			if wanted == 0 && !f.wide {
				t.Parallel()
				lane <- struct{}{}
				defer func() { <-lane }()
			}
			if wanted > 0 { // what is still missing, in equal parts
				if i == len(faults)-1 {
					p.longest = 15 * time.Minute // the last makes up for those that were slow
				}
				p.acknowledged = max(1, (wanted-report.acknowledged()+len(faults)-i-1)/(len(faults)-i))
			}
			begin := time.Now()
			r := result{Fault: f.name, About: f.about, Seed: seed, Deadline: ms(p.timeout), Failures: []string{}}
			t.Cleanup(func() { // the last one, after what the rig's own have to say
				conclude(t, &r)
				if err := report.add(r); err != nil {
					t.Error(err)
				}
			})
			run(t, broker, f, seed, p, idle, &r)
			t.Logf("%.1f s, %d rounds: %d acknowledged, %d lost, %d corrupt, %d duplicated, %d undetermined (%d found), %d unanswered, slowest answer %.0f ms, recovery %.0f ms, %v",
				time.Since(begin).Seconds(), r.Rounds, r.Acknowledged, r.Lost, r.Corrupt, r.Duplicated, r.Undetermined, r.Found,
				r.Unanswered, r.Slowest, r.Recovery, r.Answers)
		})
	}
	if report.acknowledged() < wanted {
		t.Errorf("%d acknowledged, want %d", report.acknowledged(), wanted)
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
