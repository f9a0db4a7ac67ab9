package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"fallback/test/harness"
)

// results are all figures of one run; results.json is this.
type results struct {
	Made        string             `json:"made"`
	Rounds      int                `json:"rounds"`
	DrainRounds int                `json:"drain_rounds"`
	Seconds     float64            `json:"seconds_per_cell"`
	Machine     map[string]string  `json:"machine"`
	Versions    map[string]string  `json:"versions"`
	Summary     map[string]float64 `json:"summary"`
	Function    *functionResult    `json:"function,omitempty"`
	Lambda      *functionResult    `json:"lambda,omitempty"`
	Server      *functionResult    `json:"server,omitempty"`
	Long        *longResult        `json:"long_queue,omitempty"`
	Soak        *soakResult        `json:"soak,omitempty"`
	Failed      []string           `json:"failed,omitempty"` // what could not be measured, and why
	Cells       []cell             `json:"cells"`
}

// cell is one measurement.
type cell struct {
	System   string  `json:"system"`
	InFlight int     `json:"in_flight"`
	Body     int     `json:"body_bytes"`
	Rate     float64 `json:"offered_per_second,omitempty"` // 0 is a closed loop
	Waiting  int     `json:"waiting,omitempty"`            // messages on the queue before: what a drainer has to do
	Round    int     `json:"round"`
	sample
}

// place is where systems are compared: what all of their cells have in common. rate is 0 in a closed loop.
type place struct {
	body, inFlight int
	rate           float64
	waiting        int // messages on the queue, for drainers
}

func (c cell) at() place { return place{c.Body, c.InFlight, c.Rate, c.Waiting} }

var (
	bodies   = []int{256, 16 << 10}
	inFlight = []int{1, 16, 128, 512}
)

func newResults(d time.Duration, broker *harness.Broker) *results {
	return &results{
		Made: time.Now().UTC().Format(time.DateOnly), Seconds: d.Seconds(),
		Versions: map[string]string{"go": runtime.Version(), "rabbitmq": broker.Exact(), "commit": harness.Commit()},
		Machine:  map[string]string{"cores": fmt.Sprint(runtime.NumCPU()), "cpu": harness.CPU()},
	}
}

// fail notes, and says on the terminal, what could not be measured.
func (r *results) fail(what string, err error) {
	failed := what + ": " + strings.Join(strings.Fields(err.Error()), " ") // one line, for a list
	r.Failed = append(r.Failed, failed)
	fmt.Fprintln(os.Stderr, "FAILED:", failed)
}

// err is nil if all could be measured.
func (r *results) err() error {
	if len(r.Failed) == 0 {
		return nil
	}
	return fmt.Errorf("not all of it was measured:\n%s", strings.Join(r.Failed, "\n"))
}

// add keeps a cell and says it on the terminal. One whose measurement failed, or in which nothing was answered, keeps
// no figure.
func (r *results) add(c cell, measured sample, err error) {
	if err == nil && measured.Requests == 0 {
		err = fmt.Errorf("none of %d requests was answered", measured.Errors)
	}
	if err != nil {
		measured = sample{Errors: measured.Errors + 1}
		r.fail(fmt.Sprintf("round %d, %s, %d in flight, %d bytes", c.Round, c.System, c.InFlight, c.Body), err)
	}
	c.sample = measured
	r.Cells = append(r.Cells, c)
	where := fmt.Sprintf("%4d in flight", c.InFlight)
	if c.Rate > 0 {
		where = fmt.Sprintf("at %.0f/s", c.Rate)
	}
	fmt.Fprintf(os.Stderr, "round %d  %-18s %5d B  %-15s %8.0f/s  p50 %7.2f ms  p99 %7.2f ms\n",
		c.Round, c.System, c.Body, where, c.PerSecond, c.P50, c.P99)
}

// stats are the median of a figure over the rounds and how far the rounds are apart.
type stats struct{ median, least, most float64 }

// spread is the stats of some values; zeros of none.
func spread(values []float64) stats {
	if len(values) == 0 {
		return stats{}
	}
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return stats{(v[(n-1)/2] + v[n/2]) / 2, v[0], v[n-1]}
}

// over is the stats of a figure over the rounds. A 0 is a round that has none, because nothing was answered in it.
func (r *results) over(figure func(round int) float64) stats {
	var values []float64
	for round := 1; round <= max(r.Rounds, r.DrainRounds); round++ {
		if v := figure(round); v > 0 {
			values = append(values, v)
		}
	}
	return spread(values)
}

// cell is a system's in a round, one without figures if there is none.
func (r *results) cell(system string, at place, round int) cell {
	for _, c := range r.Cells {
		if c.System == system && c.at() == at && c.Round == round {
			return c
		}
	}
	return cell{}
}

func (r *results) of(system string, at place, figure func(cell) float64) stats {
	return r.over(func(round int) float64 { return figure(r.cell(system, at, round)) })
}

func perSecond(c cell) float64  { return c.PerSecond }
func p50(c cell) float64        { return c.P50 }
func p99(c cell) float64        { return c.P99 }
func cpuMicros(c cell) float64  { return c.CPUMicros }
func peakMemory(c cell) float64 { return c.PeakMemory }

// ratio is a figure of one system over that of another, taken within each round: what disturbs the machine for a while
// disturbs both.
func (r *results) ratio(system, other string, at place, figure func(cell) float64) stats {
	return r.over(func(round int) float64 {
		return quotient(figure(r.cell(system, at, round)), figure(r.cell(other, at, round)))
	})
}

// overSum is a system's latency over that of AMQP only and HTTP only together, at the offered rate, in the rounds in
// which these two kept up: where one did not, there is nothing to compare with. There is none of a system that did not
// keep up.
func (r *results) overSum(system string, latency func(cell) float64) stats {
	at := r.atRate()
	if r.of(system, at, perSecond).median < keepsUp*at.rate {
		return stats{}
	}
	return r.over(func(round int) float64 {
		var sum float64
		for _, part := range []string{"AMQP only", "HTTP only"} {
			c := r.cell(part, at, round)
			if c.PerSecond < keepsUp*at.rate {
				return 0
			}
			sum += latency(c)
		}
		return quotient(latency(r.cell(system, at, round)), sum)
	})
}

// keepsUp is how much of the offered rate a system must reach for its latency to say anything: below it, the latency
// is how long the run was.
const keepsUp = 0.95

func (r *results) floor(at place) stats {
	return r.over(func(round int) float64 { return r.floorIn(round, at) })
}

// overFloor is a system's throughput over the floor of the same round.
func (r *results) overFloor(system string, at place) stats {
	return r.over(func(round int) float64 {
		return quotient(r.cell(system, at, round).PerSecond, r.floorIn(round, at))
	})
}

// floorIn is what a server, or a drain, would reach that adds nothing to the cost of HTTP and the cost of AMQP on the
// same cores.
func (r *results) floorIn(round int, at place) float64 {
	amqp, http := "AMQP only", "HTTP only"
	if at.waiting > 0 {
		amqp, http = "consume only", "POST only"
	}
	a, h := r.cell(amqp, at, round).PerSecond, r.cell(http, at, round).PerSecond
	return quotient(a*h, a+h) // 1 / (1/a + 1/h)
}

// quotient is 0 where there is none.
func quotient(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// atRate is where all systems were offered the same rate.
func (r *results) atRate() place {
	for _, c := range r.Cells {
		if c.Rate > 0 {
			return c.at()
		}
	}
	return place{rate: -1}
}

func (r *results) summarize() {
	at := func(body, n int) place { return place{body: body, inFlight: n} }
	r.Summary = map[string]float64{
		"server_over_floor_16":  r.overFloor("fallback", at(256, 16)).median,
		"server_over_floor_128": r.overFloor("fallback", at(256, 128)).median,
		"server_over_floor_512": r.overFloor("fallback", at(256, 512)).median,
		"server_over_article":   r.ratio("fallback", "article", at(256, 128), perSecond).median,
		"p50_over_sum":          r.overSum("fallback", p50).median,
		"p99_over_sum":          r.overSum("fallback", p99).median,
	}
	var memory float64
	for _, body := range bodies {
		memory = max(memory, r.of("fallback", at(body, 512), peakMemory).most)
	}
	r.Summary["rss_mb_512"] = memory
	if r.isDrained() {
		r.Summary["drain_over_floor"] = r.overFloor("drain", drained[0]).median
		r.Summary["drain_over_floor_8"] = r.overFloor("drain", drained[1]).median
	}
	if r.Long != nil {
		r.Summary["drain_500k_late_over_early"] = r.Long.lateOverEarly()
	}
	if r.Soak != nil {
		r.Summary["rss_growth_1m"] = r.Soak.GrowthMB
	}
}

// save writes results.json and what is made from it.
func (r *results) save(o options) error {
	if o.quick || o.drain {
		return nil
	}
	r.summarize()
	raw, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.out, "results.json"), append(raw, '\n'), 0o644); err != nil {
		return err
	}
	return renderFolder(o.out)
}

// renderFolder makes RESULTS.md and bench.svg from the folder's results.json.
func renderFolder(dir string) error {
	files, err := rendered(dir)
	if err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// rendered is what a folder's results.json gives: each file's name and what is in it.
func rendered(dir string) (map[string][]byte, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		return nil, err
	}
	var r results
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("results.json: %w", err)
	}
	return map[string][]byte{"RESULTS.md": r.report(), "bench.svg": r.picture()}, nil
}
