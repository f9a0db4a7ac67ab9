package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestResultsAreWhatWasMeasured holds the committed RESULTS.md to the committed results.json.
func TestResultsAreWhatWasMeasured(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(resultsJSON)
	if err != nil {
		t.Fatal(err)
	}
	want, err := markdown(raw)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(resultsMD)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what %s gives: make fault", resultsMD, resultsJSON)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	sums := regexp.MustCompile(`(?m)^\*\*.*\*\*$`).FindAllString(want, -1)
	if len(sums) == 0 {
		t.Error("no sum is in the results")
	}
	for _, sum := range sums {
		if !strings.Contains(string(readme), sum) {
			t.Errorf("the README does not quote the run: %s", sum)
		}
	}
}

// TestReportIsWrittenFaultByFault holds that each fault is in both files once it is over, in the order of the list.
func TestReportIsWrittenFaultByFault(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := &report{part: part{Listed: len(faults)}, RabbitMQ: "4.3.1", Commit: "0123456789abcdef", dir: dir}
	for _, one := range []result{
		{Fault: faults[1].name, Rounds: 1, Acknowledged: 1000, Recovery: 20, Limit: 5000},
		{Fault: faults[0].name, Rounds: 2, Acknowledged: 234, Recovery: 7000, Limit: 10000,
			Failures: []string{"it broke"}},
		{Fault: replayed[1].name, Rounds: 3, Acknowledged: 4321, Delivered: 4300, Parked: 21, Drained: 1500,
			Failures: []string{"it fell"}},
		{Fault: replayed[0].name, Rounds: 1, Acknowledged: 1000, Delivered: 990, Expired: 10, Drained: 2500},
	} {
		if err := r.add(one); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.addRate(rateTest{Requests: 10000, Rate: 50, Ideal: 199, Took: 210.4, Windows: 200, Over: 300,
		Worst: 7}); err != nil {
		t.Fatal(err)
	}
	if err := r.addOverload(overloadTest{Name: "slow broker", Clients: 5000, Refused: 40000, P50: 1.5, P99: 100,
		Deadline: 5000, PeakMiB: 150}); err != nil {
		t.Fatal(err)
	}
	if r.Faults[0].Fault != faults[0].name || r.Summary.Recovery != 20 || r.Summary.Acknowledged != 1234 {
		t.Errorf("got %+v", r.part)
	}
	if r.Primary.Faults[0].Fault != replayed[0].name || r.Primary.Summary.Drained != 2500 {
		t.Errorf("got %+v", r.Primary)
	}
	got, err := os.ReadFile(filepath.Join(dir, resultsMD))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1,234 requests", "it broke", "4.3.1", "0123456789ab",
		fmt.Sprintf("ended early: 2 of %d", len(faults)),
		"5,321 requests", "5,290 delivered, 21 parked, 10 expired, 0 lost", "it fell",
		fmt.Sprintf("ended early: 2 of %d", len(replayed)),
		"10,000 requests waited", "in 210 s",
		"| slow broker | 5,000 | 40,000 | 1.5 ms | 100.0 ms | 0.020 | 150 MiB |"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}
