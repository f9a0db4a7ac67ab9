package fault

import (
	"os"
	"path/filepath"
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
	_, sum, _ := strings.Cut(want, "**")
	sum, _, _ = strings.Cut(sum, "**")
	if sum == "" || !strings.Contains(string(readme), "**"+sum+"**") {
		t.Errorf("the README does not quote the run: %s", sum)
	}
}

// TestReportIsWrittenFaultByFault holds that each fault is in both files once it is over, in the order of the list.
func TestReportIsWrittenFaultByFault(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := &report{Listed: len(faults), RabbitMQ: "4.3.1", Commit: "0123456789abcdef", dir: dir}
	for _, one := range []result{
		{Fault: faults[1].name, Rounds: 1, Acknowledged: 1000, Recovery: 20, Limit: 5000},
		{Fault: faults[0].name, Rounds: 2, Acknowledged: 234, Recovery: 7000, Limit: 10000, Failures: []string{"it broke"}},
	} {
		if err := r.add(one); err != nil {
			t.Fatal(err)
		}
	}
	if r.Faults[0].Fault != faults[0].name || r.Summary.Recovery != 20 {
		t.Errorf("got %+v", r)
	}
	got, err := os.ReadFile(filepath.Join(dir, resultsMD))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1,234 requests", "it broke", "4.3.1", "0123456789ab", "ended early: 2 of"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}
