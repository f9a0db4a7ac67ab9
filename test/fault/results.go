package fault

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"fallback/test/harness"
)

// report is what a run came to: first from the client to the queue, then, if it got so far, from the client to the
// primary.
type report struct {
	Seed     uint64  `json:"seed"`
	Wanted   int     `json:"wanted"` // acknowledged requests, of the first part; 0 for one round of each fault
	Date     string  `json:"date"`
	Minutes  float64 `json:"minutes"`
	Machine  string  `json:"machine"`
	RabbitMQ string  `json:"rabbitmq"`
	Go       string  `json:"go"`
	Commit   string  `json:"commit"`
	part
	Primary  *part          `json:"to_the_primary,omitempty"`
	Rate     *rateTest      `json:"rate,omitempty"`
	Overload []overloadTest `json:"overload,omitempty"`

	mu    sync.Mutex // guards the parts, Rate, Overload, and the files
	begin time.Time
	dir   string // where the files go; empty for nowhere
}

// part is what a list of faults came to.
type part struct {
	Listed  int      `json:"listed"` // faults; fewer are below when the run was ended before its end
	Faults  []result `json:"faults"`
	Summary summary  `json:"summary"`
}

// rateTest is what came of requests that waited for a primary which takes so many a second and answers 429 above.
type rateTest struct {
	Requests int     `json:"requests"`
	Rate     int     `json:"takes_a_second"`
	Ideal    float64 `json:"ideal_s"`
	Took     float64 `json:"took_s"`
	Windows  int     `json:"windows"`         // of a second
	Over     int     `json:"refused"`         // in all of them
	Worst    int     `json:"refused_at_most"` // in one of them
}

// overloadTest is what came of far more connections than the server takes in hand, before a broker that is no help.
type overloadTest struct {
	Name     string  `json:"broker"`
	Clients  int     `json:"connections"`
	Size     int     `json:"body_bytes,omitempty"` // 0 for small ones of many sizes
	Refused  int     `json:"refused"`              // 503 overloaded
	P50      float64 `json:"refused_p50_ms"`
	P99      float64 `json:"refused_p99_ms"`
	Deadline float64 `json:"deadline_ms"` // what those in hand may take
	PeakMiB  int64   `json:"peak_mib"`
}

type summary struct {
	Faults       int     `json:"faults"`
	Rounds       int     `json:"rounds"`
	Acknowledged int     `json:"acknowledged"`
	Delivered    int     `json:"delivered,omitempty"`
	Parked       int     `json:"parked,omitempty"`
	Expired      int     `json:"expired,omitempty"`
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
	Replay       float64 `json:"next_replay_ms,omitempty"`
	Drained      float64 `json:"drained_ms,omitempty"`
	Failures     int     `json:"failures"`
}

func newReport(broker *harness.Broker, seed uint64, wanted int, dir string) *report {
	return &report{
		Seed: seed, Wanted: wanted, part: part{Listed: len(faults)}, Machine: machine(), RabbitMQ: broker.Exact(),
		Go: runtime.Version(), Commit: harness.Commit(), Date: time.Now().UTC().Format(time.DateOnly),
		begin: time.Now(), dir: dir,
	}
}

// add takes in what a fault came to, and writes the files: what ends the run early loses nothing.
func (r *report) add(one result) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if place(faults, one.Fault) >= 0 {
		r.part.add(faults, one)
		return r.write()
	}
	if r.Primary == nil {
		r.Primary = &part{Listed: len(replayed)}
	}
	r.Primary.add(replayed, one)
	return r.write()
}

// addRate takes in what became of requests before a primary that takes so many a second.
func (r *report) addRate(t rateTest) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Rate = &t
	return r.write()
}

// addOverload takes in what became of requests that were too many.
func (r *report) addOverload(t overloadTest) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Overload = append(r.Overload, t)
	return r.write()
}

// place is where a fault is in a list.
func place(list []fault, name string) int {
	return slices.IndexFunc(list, func(f fault) bool { return f.name == name })
}

func (p *part) add(list []fault, one result) {
	p.Faults = append(p.Faults, one)
	slices.SortFunc(p.Faults, func(a, b result) int { return cmp.Compare(place(list, a.Fault), place(list, b.Fault)) })
	s := &p.Summary
	s.Faults++
	s.Rounds += one.Rounds
	s.Acknowledged += one.Acknowledged
	s.Delivered += one.Delivered
	s.Parked += one.Parked
	s.Expired += one.Expired
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
	if one.Limit <= harness.Millis(allowed(recoveryLimit)) { // a longer one counts from another moment
		s.Recovery = max(s.Recovery, one.Recovery)
	}
	s.Replay, s.Drained = max(s.Replay, one.Replay), max(s.Drained, one.Drained)
	s.Failures += len(one.Failures)
}

// acknowledged is how many there are so far, of the first part.
func (r *report) acknowledged() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Summary.Acknowledged
}

const (
	resultsJSON = "results.json"
	resultsMD   = "RESULTS.md"
)

// write makes both files, the second from the first, if they are wanted.
func (r *report) write() error {
	if r.dir == "" {
		return nil
	}
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

Date %s, %.0f minutes, seed %d, commit %s. RabbitMQ %s (one node, a container with 1 GiB), %s, %s.

Load goes on while a fault strikes and after, as fast as it is answered where speed is compared, and at %s a second beyond
%s requests, which the broker's memory is enough for. Then the queue is read empty and compared with what the senders wrote down.
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
		r.Date, r.Minutes, r.Seed, r.Commit, r.RabbitMQ, r.Go, r.Machine, thousands(budgetRate), thousands(budgetBurst))
	for _, f := range r.Faults {
		fmt.Fprintf(&b, "| %s | %s | %d | %s | %d | %d | %d | %s | %s (%s) | %s | %d | %s | %s | %s |\n", f.Fault,
			f.About, f.Rounds,
			thousands(f.Acknowledged), f.Lost, f.Corrupt, f.Unexpected, thousands(f.Duplicated),
			thousands(f.Undetermined),
			thousands(f.Found), thousands(f.Unanswered), f.Late, seconds(f.Slowest), seconds(f.Deadline),
			seconds(f.Recovery))
	}
	fmt.Fprintf(&b, "| **all** | | %d | %s | %d | %d | %d | %s | %s (%s) | %s | %d | %s | | %s |\n", s.Rounds,
		thousands(s.Acknowledged), s.Lost,
		s.Corrupt, s.Unexpected, thousands(s.Duplicated), thousands(s.Undetermined), thousands(s.Found),
		thousands(s.Unanswered), s.Late, seconds(s.Slowest), seconds(s.Recovery))
	r.early(&b)
	all := r.Faults
	if r.Primary != nil {
		r.Primary.markdown(&b)
		all = slices.Concat(all, r.Primary.Faults)
	}
	if r.Rate != nil {
		r.Rate.markdown(&b)
	}
	if len(r.Overload) > 0 {
		overload(&b, r.Overload)
	}
	var failures bytes.Buffer
	excused := 0
	for _, f := range all {
		excused += f.Excused
		for _, failure := range f.Failures {
			fmt.Fprintf(&failures, "- %s: %s\n", f.Fault, failure)
		}
	}
	if excused > 0 {
		fmt.Fprintf(&b, "\nOf %s answers the sender itself was late by its own timers: they are neither among the "+
			"late nor the slowest.\n", thousands(excused))
	}
	if failures.Len() > 0 {
		fmt.Fprintf(&b, "\n## What failed\n\n%s", failures.String())
	}
	return b.String()
}

func (p *part) early(b *strings.Builder) {
	if p.Summary.Faults < p.Listed {
		fmt.Fprintf(b, "\nThe run was ended early: %d of %d faults.\n", p.Summary.Faults, p.Listed)
	}
}

// markdown is the second part: from the client to the primary.
func (p *part) markdown(b *strings.Builder) {
	s := p.Summary
	fmt.Fprintf(b, `
## From the client to the primary

**%s requests were acknowledged with a 202 and replayed by the drain while %d faults struck %d times: %s delivered, %s parked, %s expired, %s lost, %s corrupt.**

Load goes on through the server while workers replay to a primary that writes down what it gets, and a fault strikes. Then
the queues are drained and the parked queue is read. Lost: acknowledged - delivered - parked - expired. Delivered: the
primary has taken it, whatever became of its answer. Expired: by FALLBACK_MAX_AGE. Duplicated: replays of what the primary
had already taken, under the same Idempotency-Key. Corrupt: method, target, headers, body or key are not what was sent,
looked at in each replay. Next replay: from the end of the fault, the longest of all rounds; it may be 10 s. Drained: from the
end of the load until nothing waits.

| fault | what happens | rounds | acknowledged | delivered | parked | expired | lost | corrupt | unexpected | duplicated | undetermined (found) | next replay | drained |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
`, thousands(s.Acknowledged), s.Faults, s.Rounds, thousands(s.Delivered), thousands(s.Parked), thousands(s.Expired), thousands(s.Lost), thousands(s.Corrupt))
	row := func(name, about string, rounds int, f result) {
		fmt.Fprintf(b, "| %s | %s | %d | %s | %s | %s | %s | %d | %d | %d | %s | %s (%s) | %s | %s |\n", name, about,
			rounds,
			thousands(f.Acknowledged), thousands(f.Delivered), thousands(f.Parked), thousands(f.Expired), f.Lost,
			f.Corrupt, f.Unexpected,
			thousands(f.Duplicated), thousands(f.Undetermined), thousands(f.Found), seconds(f.Replay),
			seconds(f.Drained))
	}
	for _, f := range p.Faults {
		row(f.Fault, f.About, f.Rounds, f)
	}
	row("**all**", "", s.Rounds, result{
		Acknowledged: s.Acknowledged, Delivered: s.Delivered, Parked: s.Parked, Expired: s.Expired, Lost: s.Lost,
		Corrupt:    s.Corrupt,
		Unexpected: s.Unexpected, Duplicated: s.Duplicated, Undetermined: s.Undetermined, Found: s.Found,
		Replay: s.Replay, Drained: s.Drained,
	})
	p.early(b)
}

func (t *rateTest) markdown(b *strings.Builder) {
	fmt.Fprintf(b, `
## A primary with a limit

**%s requests waited for a primary that takes %d a second and answers 429 above: delivered in %.0f s, where %.0f s are ideal, and at most %d refused in one second.**

%s were refused in %d windows of a second; each came back. The primary says Retry-After: 1. A worker with FALLBACK_DRAIN_CONCURRENCY=200.
`, thousands(t.Requests), t.Rate, t.Took, t.Ideal, t.Worst, thousands(t.Over), t.Windows)
}

func overload(b *strings.Builder, tests []overloadTest) {
	b.WriteString(`
## Overload

More connections than the server takes requests in hand (1,024), and than it takes at all. Those in
hand may take the deadline; who is over the bound is told at once: the p99 of a refusal may be a fifth of the deadline.

| broker | connections | refused | p50 | p99 | p99 / deadline | the server's peak |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
`)
	for _, t := range tests {
		fmt.Fprintf(b, "| %s | %s | %s | %.1f ms | %.1f ms | %.3f | %d MiB |\n", t.Name, thousands(t.Clients),
			thousands(t.Refused), t.P50, t.P99,
			t.P99/t.Deadline, t.PeakMiB)
	}
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
	return fmt.Sprintf("%d CPUs (%s)", runtime.NumCPU(), cmp.Or(harness.CPU(), runtime.GOARCH))
}
