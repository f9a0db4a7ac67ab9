package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"fallback/test/harness"
)

// results are all figures of one run; results.json is this.
type results struct {
	Made     string             `json:"made"`
	Rounds   int                `json:"rounds"`
	Seconds  float64            `json:"seconds_per_cell"`
	Machine  map[string]string  `json:"machine"`
	Versions map[string]string  `json:"versions"`
	Summary  map[string]float64 `json:"summary"`
	Function *functionResult    `json:"function,omitempty"`
	Soak     *soakResult        `json:"soak,omitempty"`
	Cells    []cell             `json:"cells"`
}

func newResults(rounds int, d time.Duration) *results {
	r := &results{
		Made: time.Now().UTC().Format(time.DateOnly), Rounds: rounds, Seconds: d.Seconds(),
		Machine: map[string]string{"cores": fmt.Sprint(runtime.NumCPU()), "cpu": procValue("/proc/cpuinfo", "model name"),
			"memory": procValue("/proc/meminfo", "MemTotal"), "os": runtime.GOOS + "/" + runtime.GOARCH},
		Versions: map[string]string{"go": runtime.Version(), "rabbitmq": harness.Version()},
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/rabbitmq/amqp091-go" {
				r.Versions["amqp091-go"] = m.Version
			}
		}
	}
	return r
}

func procValue(file, key string) string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.SplitSeq(string(raw), "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// add keeps a cell and says it on the terminal.
func (r *results) add(c cell) {
	r.Cells = append(r.Cells, c)
	at := fmt.Sprintf("%4d in flight", c.InFlight)
	if c.Rate > 0 {
		at = fmt.Sprintf("at %.0f/s", c.Rate)
	}
	fmt.Fprintf(os.Stderr, "round %d  %-18s %5d B  %-15s %8.0f/s  p50 %7.2f ms  p99 %7.2f ms\n",
		c.Round, c.System, c.Body, at, c.PerSecond, c.P50, c.P99)
}

// stats are the median of a figure over the rounds and how far the rounds are apart.
type stats struct{ median, least, most float64 }

func (r *results) of(system string, body, inFlight int, open bool, figure func(cell) float64) stats {
	var values []float64
	for _, c := range r.Cells {
		if c.System == system && c.Body == body && c.InFlight == inFlight && (c.Rate > 0) == open {
			values = append(values, figure(c))
		}
	}
	if len(values) == 0 {
		return stats{}
	}
	slices.Sort(values)
	return stats{values[len(values)/2], values[0], values[len(values)-1]}
}

func perSecond(c cell) float64 { return c.PerSecond }
func p99(c cell) float64       { return c.P99 }

func (r *results) throughput(system string, body, inFlight int) float64 {
	return r.of(system, body, inFlight, false, perSecond).median
}

// floor is what a server would reach that adds nothing to the cost of HTTP and the cost of AMQP on the same cores.
func (r *results) floor(body, inFlight int) float64 {
	a, h := r.throughput("AMQP only", body, inFlight), r.throughput("HTTP only", body, inFlight)
	if a == 0 || h == 0 {
		return 0
	}
	return 1 / (1/a + 1/h)
}

func (r *results) summarize() {
	server := func(n int) float64 { return r.throughput("fallback", 256, n) }
	r.Summary = map[string]float64{
		"server_over_floor_128": server(128) / r.floor(256, 128),
		"server_over_floor_512": server(512) / r.floor(256, 512),
		"p99_over_amqp":         r.of("fallback", 256, 128, true, p99).median / r.of("AMQP only", 256, 128, true, p99).median,
		"rss_mb_512":            r.of("fallback", 256, 512, false, func(c cell) float64 { return c.PeakMemory }).most,
	}
	if article := r.throughput("article", 256, 128); article > 0 {
		r.Summary["server_over_article"] = server(128) / article
	}
}

// write makes the files.
func (r *results) write(dir string) error {
	r.summarize()
	raw, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	table := r.table()
	fmt.Print(table)
	for name, data := range map[string][]byte{
		"results.json": append(raw, '\n'),
		"RESULTS.md":   []byte("<!-- Made by `make bench` from results.json. -->\n\n# What Fallback reaches\n\n" + table),
		"bench.svg":    r.picture(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// table is the run as Markdown.
func (r *results) table() string {
	r.summarize()
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s, %s cores (%s), RabbitMQ %s, %s. Medians of %d rounds of %.1f s each, interleaved; spread in brackets. "+
		"Load generator, server and broker share the cores: what counts are the ratios.\n\n",
		r.Made, r.Machine["cores"], r.Machine["cpu"], r.Versions["rabbitmq"], r.Versions["go"], r.Rounds, r.Seconds)
	for _, body := range []int{256, 16 << 10} {
		r.throughputTable(&b, body)
	}
	r.latencyTable(&b)
	s := r.Summary
	fmt.Fprintf(&b, "| summary | | to reach |\n| --- | ---: | ---: |\n")
	fmt.Fprintf(&b, "| server / floor, 128 in flight | %.2f | 0.95 |\n| server / floor, 512 in flight | %.2f | 0.95 |\n", s["server_over_floor_128"], s["server_over_floor_512"])
	fmt.Fprintf(&b, "| p99 at half the floor's rate / that of AMQP only | %.2f | 1.5 |\n", s["p99_over_amqp"])
	fmt.Fprintf(&b, "| server / the article's way, 128 in flight | %.0f | 25 |\n", s["server_over_article"])
	fmt.Fprintf(&b, "| peak resident memory, 512 in flight, MB | %.0f | 64 |\n", s["rss_mb_512"])
	if f := r.Function; f != nil {
		fmt.Fprintf(&b, "| function: exec, MB | %.1f | 10 |\n| function: start to ready, ms | %.0f | 150 |\n", f.ExecMB, f.ReadyMS)
		fmt.Fprintf(&b, "| function: a cold call, round trips of %s to the broker | %d (%.0f ms) | 8 |\n", roundTrip, f.ColdTrips, f.ColdMS)
		fmt.Fprintf(&b, "| function: a warm call, ms beyond its %d round trip | %.1f | 2 |\n", f.WarmTrips, f.WarmMS-ms(roundTrip))
	}
	if r.Soak != nil {
		fmt.Fprintf(&b, "\nOver %d requests the server's resident memory was, after each tenth (MB):", r.Soak.Requests)
		for _, mb := range r.Soak.MemoryMB {
			fmt.Fprintf(&b, " %.0f", mb)
		}
		fmt.Fprintln(&b, ".")
	}
	return b.String()
}

func (r *results) throughputTable(b *bytes.Buffer, body int) {
	if r.throughput("fallback", body, 512) == 0 {
		return
	}
	fmt.Fprintf(b, "## Requests a second, bodies of %d bytes\n\n", body)
	fmt.Fprintln(b, "| | in flight | requests/s | of the floor | p50 ms | p99 ms | server CPU µs | peak MB |")
	fmt.Fprintln(b, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	for _, n := range []int{1, 16, 128, 512} {
		floor := r.floor(body, n)
		if floor == 0 {
			continue
		}
		for _, s := range systems {
			rate := r.of(s.name, body, n, false, perSecond)
			if rate.median == 0 {
				continue
			}
			median := func(figure func(cell) float64) float64 { return r.of(s.name, body, n, false, figure).median }
			cpu, memory := "", ""
			if s.server != nil {
				cpu = fmt.Sprintf("%.0f", median(func(c cell) float64 { return c.CPUMicros }))
				memory = fmt.Sprintf("%.0f", median(func(c cell) float64 { return c.PeakMemory }))
			}
			fmt.Fprintf(b, "| %s | %d | %.0f (%.0f–%.0f) | %.2f | %.2f | %.2f | %s | %s |\n", s.name, n, rate.median, rate.least, rate.most,
				rate.median/floor, median(func(c cell) float64 { return c.P50 }), median(p99), cpu, memory)
		}
		fmt.Fprintf(b, "| **floor** | %d | %.0f | 1.00 | | | | |\n", n, floor)
	}
	fmt.Fprintln(b)
}

func (r *results) latencyTable(b *bytes.Buffer) {
	var rate float64
	for _, c := range r.Cells {
		rate = max(rate, c.Rate)
	}
	fmt.Fprintf(b, "## Latency at one offered rate: %.0f requests/s, half the floor at 128 in flight\n\n", rate)
	fmt.Fprintln(b, "Measured from the moment a request was due.\n\n| | p50 ms | p99 ms |\n| --- | ---: | ---: |")
	for _, s := range systems[:3] {
		p50 := r.of(s.name, 256, 128, true, func(c cell) float64 { return c.P50 }).median
		late := r.of(s.name, 256, 128, true, p99)
		fmt.Fprintf(b, "| %s | %.2f | %.2f (%.2f–%.2f) |\n", s.name, p50, late.median, late.least, late.most)
	}
	fmt.Fprintln(b)
}
