package fault

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"fallback/test/harness"
)

// report is what the whole list came to.
type report struct {
	Seed     uint64   `json:"seed"`
	Wanted   int      `json:"wanted"` // acknowledged requests; 0 for one round of each
	Listed   int      `json:"listed"` // faults; fewer are below when the run was ended before its end
	Date     string   `json:"date"`
	Minutes  float64  `json:"minutes"`
	Machine  string   `json:"machine"`
	RabbitMQ string   `json:"rabbitmq"`
	Go       string   `json:"go"`
	Commit   string   `json:"commit"`
	Faults   []result `json:"faults"`
	Summary  summary  `json:"summary"`

	mu    sync.Mutex // guards Faults and Summary, and the files
	begin time.Time
	dir   string // where the files go; empty for nowhere
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
	Undialled    int     `json:"failed_dials"`
	Late         int     `json:"late"`
	Slowest      float64 `json:"slowest_answer_ms"`
	Recovery     float64 `json:"recovery_ms"`
	Failures     int     `json:"failures"`
}

func newReport(broker *harness.Broker, seed uint64, wanted int, dir string) (*report, error) {
	var overview struct {
		Version string `json:"rabbitmq_version"`
	}
	if err := broker.Call(http.MethodGet, "/api/overview", nil, &overview); err != nil {
		return nil, err
	}
	return &report{
		Seed: seed, Wanted: wanted, Listed: len(faults), Machine: machine(), RabbitMQ: overview.Version, Go: runtime.Version(),
		Commit: commit(), Date: time.Now().UTC().Format(time.DateOnly), begin: time.Now(), dir: dir,
	}, nil
}

// add takes in what a fault came to, and writes the files: what ends the run early loses nothing.
func (r *report) add(one result) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Faults = append(r.Faults, one)
	slices.SortFunc(r.Faults, func(a, b result) int { return cmp.Compare(place(a.Fault), place(b.Fault)) })
	r.sum(one)
	if r.dir == "" {
		return nil
	}
	return r.write()
}

// place is where a fault is in the list.
func place(name string) int {
	return slices.IndexFunc(faults, func(f fault) bool { return f.name == name })
}

func (r *report) sum(one result) {
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
	s.Undialled += one.Undialled
	s.Late += one.Late
	s.Slowest = max(s.Slowest, one.Slowest)
	if one.Limit <= ms(recoveryLimit) { // a longer one counts from another moment
		s.Recovery = max(s.Recovery, one.Recovery)
	}
	s.Failures += len(one.Failures)
}

// acknowledged is how many there are so far.
func (r *report) acknowledged() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Summary.Acknowledged
}

const (
	resultsJSON = "results.json"
	resultsMD   = "RESULTS.md"
)

// write makes both files, the second from the first.
func (r *report) write() error {
	r.Minutes = float64(int(time.Since(r.begin).Minutes()*10)) / 10
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	text, err := markdown(raw)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.dir, resultsJSON), append(raw, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.dir, resultsMD), []byte(text), 0o644)
}

// markdown makes RESULTS.md from results.json and from nothing else.
func markdown(raw []byte) (string, error) {
	var r report
	if err := json.Unmarshal(raw, &r); err != nil {
		return "", err
	}
	return r.markdown(), nil
}

func (r *report) markdown() string {
	var b strings.Builder
	s := r.Summary
	fmt.Fprintf(&b, `<!-- Made by "make fault" from results.json. -->
# What the fault suite measured

**%s requests were acknowledged with a 202 while %d faults struck %d times: %s lost, %s corrupt, %s answered late.**

Date %s, %.0f minutes, seed %d, commit %.12s. RabbitMQ %s (one node, a container with 1 GiB), %s, %s.

Load goes on while a fault strikes and after. Then the queue is read empty and compared with what the senders wrote down.
Duplicated: messages that were on the queue more than once, under the same id. Undetermined: requests without a 202, of which
so many were on the queue all the same. Cut off: of the undetermined, those whose connection ended without an answer, because the
server's process did. Late: answered after the deadline and one second.

Recovery: from the end of the fault to the first 202 to a request that was sent after it, the longest of all rounds; it may be
5 s. After that the load goes on until nearly every answer is a 202, at a quarter of the rate before the fault or more, which
must be so 5 s after the end. Of a half-open connection the server is never told, so nothing ends: recovery is from the moment
when the broker's side goes, and may be the deadline and 5 s, because a missed confirm is the first that the server can know; it
is not in the last row.

| fault | what happens | rounds | acknowledged | lost | corrupt | unexpected | duplicated | undetermined (found) | cut off | late | slowest answer | deadline | recovery |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
`, thousands(s.Acknowledged), s.Faults, s.Rounds, thousands(s.Lost), thousands(s.Corrupt), thousands(s.Late),
		r.Date, r.Minutes, r.Seed, r.Commit, r.RabbitMQ, r.Go, r.Machine)
	for _, f := range r.Faults {
		fmt.Fprintf(&b, "| %s | %s | %d | %s | %d | %d | %d | %s | %s (%s) | %s | %d | %s | %s | %s |\n", f.Fault, f.About, f.Rounds,
			thousands(f.Acknowledged), f.Lost, f.Corrupt, f.Unexpected, thousands(f.Duplicated), thousands(f.Undetermined),
			thousands(f.Found), thousands(f.Unanswered), f.Late, seconds(f.Slowest), seconds(f.Deadline), seconds(f.Recovery))
	}
	fmt.Fprintf(&b, "| **all** | | %d | %s | %d | %d | %d | %s | %s (%s) | %s | %d | %s | | %s |\n", s.Rounds, thousands(s.Acknowledged), s.Lost,
		s.Corrupt, s.Unexpected, thousands(s.Duplicated), thousands(s.Undetermined), thousands(s.Found), thousands(s.Unanswered), s.Late, seconds(s.Slowest), seconds(s.Recovery))
	if s.Faults < r.Listed {
		fmt.Fprintf(&b, "\nThe run was ended early: %d of %d faults.\n", s.Faults, r.Listed)
	}
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

// commit is what was checked out; what was changed since is not in it.
func commit() string {
	git := exec.Command("git", "rev-parse", "HEAD")
	git.Dir = harness.Root()
	out, err := git.Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
