package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRendered holds that RESULTS.md and bench.svg are what results.json gives, and its summary what its cells give.
func TestRendered(t *testing.T) {
	t.Parallel()
	want, err := rendered(".")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, quoted, _ := strings.Cut(string(want["RESULTS.md"]), "## Beside what was to be reached\n\n")
	quoted, _, _ = strings.Cut(quoted, "\n\n")
	if quoted == "" || !strings.Contains(string(readme), quoted) {
		t.Errorf("the README does not quote the run's quoted:\n%s", quoted)
	}
	for name, w := range want {
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(w), string(got)); diff != "" {
			t.Errorf("%s is stale, dist/bench -render makes it (-results.json +file):\n%s", name, diff)
		}
	}
	var stored results
	raw, _ := os.ReadFile("results.json")
	if err := json.Unmarshal(raw, &stored); err != nil {
		t.Fatal(err)
	}
	summary := stored.Summary
	stored.summarize()
	if diff := cmp.Diff(stored.Summary, summary); diff != "" {
		t.Errorf("summary is not that of the cells (-cells +summary):\n%s", diff)
	}
}

// run is a run of three rounds in which the machine was half as fast in the second.
func run() *results {
	r := &results{Rounds: 3, Versions: map[string]string{"commit": "abc1234"}}
	speed := map[string]float64{"AMQP only": 20_000, "HTTP only": 60_000, "fallback": 15_000, "article": 500, "RabbitMQ HTTP API": 800}
	for round, machine := range []float64{1, 0.5, 0.8} {
		for _, s := range systems {
			for _, at := range append(options{}.places(), place{256, 128, 7500}) {
				c := cell{System: s.name, InFlight: at.inFlight, Body: at.body, Rate: at.rate, Round: round + 1}
				c.sample = sample{Requests: 100, PerSecond: speed[s.name] * machine, P50: 1 / machine, P99: 2 / machine}
				if s.server != "" {
					c.PeakMemory = 20 + float64(at.body)/1024 + float64(round)
				}
				r.Cells = append(r.Cells, c)
			}
		}
	}
	return r
}

func TestSummary(t *testing.T) {
	t.Parallel()
	r := run()
	r.summarize()
	want := map[string]float64{
		"server_over_floor_128": 1, "server_over_floor_512": 1, "server_over_article": 30, "p99_over_amqp": 1,
		"rss_mb_512": 20 + 16 + 2, // of either body size, in whichever round
	}
	if diff := cmp.Diff(want, r.Summary, cmp.Comparer(near)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

// TestSummaryOfNothing holds that a run in which nothing was answered has every key, and numbers that JSON can hold.
func TestSummaryOfNothing(t *testing.T) {
	t.Parallel()
	r := run()
	for i := range r.Cells {
		r.Cells[i].sample = sample{Errors: 1}
	}
	for _, r := range []*results{r, {}} {
		r.summarize()
		if _, err := json.Marshal(r); err != nil {
			t.Error(err)
		}
		keys := slices.Sorted(maps.Keys(r.Summary))
		want := []string{"p99_over_amqp", "rss_mb_512", "server_over_article", "server_over_floor_128", "server_over_floor_512"}
		if diff := cmp.Diff(want, keys); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		r.report()
		r.picture()
	}
}

// TestRatioWithinRounds holds that a slow round does not move a ratio, which a quotient of medians would.
func TestRatioWithinRounds(t *testing.T) {
	t.Parallel()
	r := run()
	at := place{body: 256, inFlight: 128}
	for name, got := range map[string]stats{
		"over the floor":   r.overFloor("fallback", at),
		"over the article": r.ratio("fallback", "article", at, perSecond),
	} {
		if !near(got.least, got.most) {
			t.Errorf("%s: %v, want the same in each round", name, got)
		}
	}
	want := stats{15_000 * 0.8, 15_000 * 0.5, 15_000}
	if got := r.floor(at); !near(got.median, want.median) || !near(got.least, want.least) || !near(got.most, want.most) {
		t.Errorf("floor is %v, want %v", got, want)
	}
}

func TestSpread(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		values []float64
		want   stats
	}{
		{nil, stats{}},
		{[]float64{3}, stats{3, 3, 3}},
		{[]float64{3, 1, 2}, stats{2, 1, 3}},
		{[]float64{4, 1, 2, 3}, stats{2.5, 1, 4}},
	} {
		if got := spread(row.values); got != row.want {
			t.Errorf("spread(%v) = %v, want %v", row.values, got, row.want)
		}
	}
}

// TestSaved holds that what is rendered from the file is what is rendered from the run, and says what it should.
func TestSaved(t *testing.T) {
	t.Parallel()
	r := run()
	r.Cells[0].Errors = 7
	r.Soak = &soakResult{Requests: 1000, MemoryMB: []float64{20, 30, 31, 30, 31, 32, 31, 30, 31, 32}}
	r.Soak.judge()
	r.Function = &functionResult{ExecMB: 7.1, WarmTrips: 1, WarmMS: 21, TripMS: 20.1}
	dir := t.TempDir()
	if err := r.save(options{out: dir}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"RESULTS.md": r.report(), "bench.svg": r.picture()} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %s", name, cmp.Diff(string(want), string(got)))
		}
	}
	report := string(r.report())
	for _, want := range []string{
		"![", "(bench.svg)", "commit abc1234", "| **floor** | 128 | 12000 (7500–15000) |", "| AMQP only | 1 | 16000 (10000–20000) | 1.33 (1.33–1.33) | 1.25 | 2.50 |  |  | 7 |",
		"| article | 400 (250–500) | – | – | – | 0 |", "+2.0: no growth",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("RESULTS.md does not say %q:\n%s", want, report)
		}
	}
}

// TestPicture holds that it is XML with a line for each system and the floor, and asks for nothing from elsewhere.
func TestPicture(t *testing.T) {
	t.Parallel()
	svg := run().picture()
	lines := 0
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if start.Name.Local == "polyline" {
			lines++
		}
		if start.Name.Local == "script" {
			t.Error("it has a script")
		}
	}
	if want := len(systems) + 1 + len(systems); lines != want {
		t.Errorf("%d lines, want %d", lines, want)
	}
	if n := bytes.Count(svg, []byte("http")); n != 1 { // the name of the format
		t.Errorf("%d addresses in it, want 1", n)
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		second, last float64
		want         string
	}{{30, 32, "no growth"}, {30, 25, "no growth"}, {30, 34, "it grew"}} {
		r := soakResult{MemoryMB: []float64{10, row.second, 99, row.last}}
		r.judge()
		if r.Verdict != row.want || r.GrowthMB != row.last-row.second {
			t.Errorf("%v to %v: %s, %v MB, want %s", row.second, row.last, r.Verdict, r.GrowthMB, row.want)
		}
	}
}

// TestOrder holds that each round has every system once, and that none follows the same one in every round.
func TestOrder(t *testing.T) {
	t.Parallel()
	for _, some := range [][]system{systems, systems[:3]} {
		after := map[string]int{}
		for round := 1; round <= 4; round++ {
			seen := map[string]bool{}
			ordered := order(some, round)
			for i, s := range ordered {
				seen[s.name] = true
				if i > 0 {
					after[ordered[i-1].name+", "+s.name]++
				}
			}
			if len(seen) != len(some) {
				t.Errorf("round %d has %d of %d systems", round, len(seen), len(some))
			}
		}
		for pair, n := range after {
			if n > 2 {
				t.Errorf("%s: so in %d of 4 rounds", pair, n)
			}
		}
	}
}
