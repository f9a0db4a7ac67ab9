package fault

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"fallback/test/harness"
)

// report is what the whole list came to.
type report struct {
	Seed     uint64   `json:"seed"`
	Wanted   int      `json:"wanted"` // acknowledged requests; 0 for one round of each
	Date     string   `json:"date"`
	Minutes  float64  `json:"minutes"`
	Machine  string   `json:"machine"`
	RabbitMQ string   `json:"rabbitmq"`
	Go       string   `json:"go"`
	Faults   []result `json:"faults"`
	Summary  summary  `json:"summary"`

	begin time.Time
}

type summary struct {
	Faults       int     `json:"faults"`
	Rounds       int     `json:"rounds"`
	Acknowledged int     `json:"acknowledged"`
	Lost         int     `json:"lost"`
	Corrupt      int     `json:"corrupt"`
	Unexpected   int     `json:"unexpected"`
	Duplicated   int     `json:"duplicated"`
	Undetermined int     `json:"undetermined"`
	Found        int     `json:"undetermined_found"`
	Unanswered   int     `json:"unanswered"`
	Late         int     `json:"late"`
	Slowest      float64 `json:"slowest_answer_ms"`
	Recovery     float64 `json:"recovery_ms"`
	Failures     int     `json:"failures"`
}

func newReport(seed uint64, wanted int) *report {
	return &report{
		Seed: seed, Wanted: wanted, Machine: machine(), RabbitMQ: harness.Version(), Go: runtime.Version(),
		Date: time.Now().UTC().Format(time.DateOnly), begin: time.Now(),
	}
}

func (r *report) add(one result) {
	r.Faults = append(r.Faults, one)
	s := &r.Summary
	s.Faults++
	s.Rounds += one.Rounds
	s.Acknowledged += one.Acknowledged
	s.Lost += one.Lost
	s.Corrupt += one.Corrupt
	s.Unexpected += one.Unexpected
	s.Duplicated += one.Duplicated
	s.Undetermined += one.Undetermined
	s.Found += one.Found
	s.Unanswered += one.Unanswered
	s.Late += one.Late
	s.Slowest = max(s.Slowest, one.Slowest)
	s.Recovery = max(s.Recovery, one.Recovery)
	s.Failures += len(one.Failures)
}

// write makes results.json and RESULTS.md.
func (r *report) write(dir string) error {
	r.Minutes = float64(int(time.Since(r.begin).Minutes()*10)) / 10
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(raw, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "RESULTS.md"), []byte(r.markdown()), 0o644)
}

func (r *report) markdown() string {
	var b strings.Builder
	s := r.Summary
	fmt.Fprintf(&b, `<!-- Made by "make fault" from results.json. -->
# What the fault suite measured

**%s requests were acknowledged with a 202 while %d faults struck %d times: %s lost, %s corrupt, %s answered late.**

Date %s, %.0f minutes, seed %d. RabbitMQ %s (one node, a container with 1 GiB), %s, %s.

Load goes on while a fault strikes and after. Then the queue is read empty and compared with what the senders wrote down.
Duplicated: messages that were on the queue more than once, under the same id. Undetermined: requests without a 202, of which
so many were on the queue all the same. Cut off: of the undetermined, those whose connection ended without an answer, because the
server's process did. Recovery: from the end of the fault to the next 202, the longest of all rounds.
Late: answered after the deadline and one second.

| fault | what happens | rounds | acknowledged | lost | corrupt | unexpected | duplicated | undetermined (found) | cut off | late | slowest answer | deadline | recovery |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
`, thousands(s.Acknowledged), s.Faults, s.Rounds, thousands(s.Lost), thousands(s.Corrupt), thousands(s.Late),
		r.Date, r.Minutes, r.Seed, r.RabbitMQ, r.Go, r.Machine)
	for _, f := range r.Faults {
		fmt.Fprintf(&b, "| %s | %s | %d | %s | %d | %d | %d | %s | %s (%s) | %s | %d | %s | %s | %s |\n", f.Fault, f.About, f.Rounds,
			thousands(f.Acknowledged), f.Lost, f.Corrupt, f.Unexpected, thousands(f.Duplicated), thousands(f.Undetermined),
			thousands(f.Found), thousands(f.Unanswered), f.Late, seconds(f.Slowest), seconds(f.Deadline), seconds(f.Recovery))
	}
	fmt.Fprintf(&b, "| **all** | | %d | %s | %d | %d | %d | %s | %s (%s) | %s | %d | %s | | %s |\n", s.Rounds, thousands(s.Acknowledged), s.Lost,
		s.Corrupt, s.Unexpected, thousands(s.Duplicated), thousands(s.Undetermined), thousands(s.Found), thousands(s.Unanswered), s.Late, seconds(s.Slowest), seconds(s.Recovery))
	var failures bytes.Buffer
	for _, f := range r.Faults {
		for _, failure := range f.Failures {
			fmt.Fprintf(&failures, "- %s: %s\n", f.Fault, failure)
		}
	}
	if failures.Len() > 0 {
		fmt.Fprintf(&b, "\n## What failed\n\n%s", failures.String())
	}
	return b.String()
}

func seconds(ms float64) string { return fmt.Sprintf("%.2f s", ms/1000) }

// thousands writes 1234567 as 1,234,567.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// machine says what the suite ran on.
func machine() string {
	name := runtime.GOOS + "/" + runtime.GOARCH
	file, err := os.Open("/proc/cpuinfo")
	if err == nil {
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
				name = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d CPUs (%s)", runtime.NumCPU(), name)
}
