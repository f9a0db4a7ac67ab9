//go:build e2e

package fault

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// TestFaults does a short round of each fault. With FAULT_ACKNOWLEDGED it goes on until as many requests were accepted,
// over the whole list, and with FAULT_RESULTS it writes results.json and RESULTS.md to that folder.
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
	report := newReport(seed, wanted)
	for i, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			p := p
			if wanted > 0 { // what is still missing, in equal parts
				if i == len(faults)-1 {
					p.longest = 15 * time.Minute // the last makes up for those that were slow
				}
				p.acknowledged = max(1, (wanted-report.Summary.Acknowledged+len(faults)-i-1)/(len(faults)-i))
			}
			begin := time.Now()
			r := run(t, broker, f, seed, p)
			report.add(r)
			t.Logf("%.1f s, %d rounds: %d acknowledged, %d lost, %d corrupt, %d duplicated, %d undetermined (%d found), %d unanswered, slowest answer %.0f ms, recovery %.0f ms, %v",
				time.Since(begin).Seconds(), r.Rounds, r.Acknowledged, r.Lost, r.Corrupt, r.Duplicated, r.Undetermined, r.Found,
				r.Unanswered, r.Slowest, r.Recovery, r.Answers)
			for _, failure := range r.Failures {
				t.Error(failure)
			}
			if len(r.Failures) > 0 {
				t.Error(again(t))
			}
		})
	}
	if report.Summary.Acknowledged < wanted {
		t.Errorf("%d acknowledged, want %d", report.Summary.Acknowledged, wanted)
	}
	if dir := os.Getenv("FAULT_RESULTS"); dir != "" {
		if err := report.write(dir); err != nil {
			t.Error(err)
		}
	}
}
