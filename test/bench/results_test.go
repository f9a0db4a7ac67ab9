package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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
	for _, title := range []string{"Beside what was to be reached", "In each place"} {
		_, quoted, _ := strings.Cut(string(want["RESULTS.md"]), "## "+title+"\n\n")
		quoted, _, _ = strings.Cut(quoted, "\n\n")
		if quoted == "" || !strings.Contains(string(readme), quoted) {
			t.Errorf("the README does not quote the run's table %q:\n%s", title, quoted)
		}
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
	speed := map[string]float64{"AMQP only": 20_000, "HTTP only": 60_000, "fallback": 15_000, "article": 500,
		"RabbitMQ HTTP API": 800}
	for round, machine := range []float64{1, 0.5, 0.8} {
		for _, s := range systems {
			for _, at := range append(options{}.places(), place{body: 256, inFlight: 128, rate: 7500}) {
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
		"server_over_floor_16": 1, "server_over_floor_128": 1, "server_over_floor_512": 1, "server_over_article": 30,
		"p50_over_sum": 0.5, "p99_over_sum": 0.5,
		"rss_mb_512": 20 + 16 + 2, // of either body size, in whichever round
	}
	if diff := cmp.Diff(want, r.Summary, cmp.Comparer(near)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestDrained holds what is said of the drain, and that nothing is where it was not measured.
func TestDrained(t *testing.T) {
	t.Parallel()
	r := run()
	r.summarize()
	if _, ok := r.Summary["drain_over_floor"]; ok || strings.Contains(string(r.report()), "drain") {
		t.Error("a run without the drain says something of it")
	}
	throughput := string(r.report())
	throughput = throughput[:strings.Index(throughput, "## Beside")]
	speed := map[string]float64{"consume only": 20_000, "POST only": 5_000, "drain": 3_000}
	for round, machine := range []float64{1, 0.5, 0.8, 0.9, 0.9} { // more rounds than the server has
		for _, d := range drainers {
			for _, at := range drained {
				c := cell{System: d.name, InFlight: at.inFlight, Body: at.body, Waiting: at.waiting, Round: round + 1}
				c.sample = sample{Requests: at.waiting, PerSecond: speed[d.name] * machine, Errors: 1}
				if d.name == "drain" && at.inFlight == 8 {
					c.PerSecond = 3_600 * machine
				}
				r.Cells = append(r.Cells, c)
			}
		}
	}
	r.DrainRounds = 5
	r.Long = &longResult{Waiting: 500_000, PerSecond: []float64{9_000, 10_000, 1, 1, 1, 1, 1, 1, 1, 8_500}}
	r.summarize()
	for key, want := range map[string]float64{"drain_over_floor": 0.75, "drain_over_floor_8": 0.9,
		"drain_500k_late_over_early": 0.85} {
		if got := r.Summary[key]; !near(got, want) {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
	report := string(r.report())
	if !strings.HasPrefix(report, throughput) {
		t.Error("the drain's figures are among those of the server")
	}
	for _, want := range []string{
		"Medians of 5 rounds.", "| drain | 256 | 128 | 40000 | 2700 (1500–3000) | 0.75 (0.75–0.75) | – | – | 5 |",
		"| **floor** | 256 | 8 | 40000 | 3600 (2000–4000) | 1 |  |  |  |",
		"drains 500000 of 256 bytes, 128 in flight, requests/s were, in each tenth: 9000 10000 1 1 1 1 1 1 1 8500.",
		"| drain / its floor, 128 in flight | 0.75 (0.75–0.75) | 0.85 |",
		"| drain / its floor, 8 in flight | 0.90 (0.90–0.90) | 0.85 |",
		"| drain of 500000 waiting, requests/s in the last tenth / in the second | 0.85 | 0.8 |",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("RESULTS.md does not say %q:\n%s", want, report)
		}
	}
}

// TestRates holds that a drain which slows down has the rate of each tenth.
func TestRates(t *testing.T) {
	t.Parallel()
	now := time.Now()
	came := []time.Time{now}
	for i := range 1000 {
		now = now.Add(time.Duration(1+i/100) * time.Millisecond)
		came = append(came, now)
	}
	want := make([]float64, 10)
	for i := range want {
		want[i] = 1000 / float64(1+i)
	}
	if diff := cmp.Diff(want, rates(came), cmp.Comparer(near)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(make([]float64, 10), rates(came[:1])); diff != "" {
		t.Errorf("of one: -want +got:\n%s", diff)
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
		want := []string{"p50_over_sum", "p99_over_sum", "rss_mb_512", "server_over_article", "server_over_floor_128",
			"server_over_floor_16", "server_over_floor_512"}
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
	if got := r.floor(at); !near(got.median, want.median) || !near(got.least, want.least) ||
		!near(got.most, want.most) {
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
	r.Function = &functionResult{ExecMB: 7.1, WarmTrips: 1, WarmMS: 21, TripMS: 20.1, ColdTrips: 7, ColdMS: 150}
	r.Server = &functionResult{ExecMB: 15.9, ReadyMS: 160, WarmTrips: 1, WarmMS: 21}
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
		"![", "(bench.svg)", "commit abc1234", "| **floor** | 128 | 12000 (7500–15000) |",
		"| AMQP only | 1 | 16000 (10000–20000) | 1.33 (1.33–1.33) | 1.25 | 2.50 |  |  | 7 |",
		"| article | 400 (250–500) | – | – | – | – | 0 |", "+2.0: no growth",
		"| program, MB | 15.9 | 7.1 | – |", "| none is cold | 7 (150 ms) | – |",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("RESULTS.md does not say %q:\n%s", want, report)
		}
	}
}

// TestFailed holds that what could not be measured has no figure, is named in the results, and makes an error of the
// run.
func TestFailed(t *testing.T) {
	t.Parallel()
	r := &results{Rounds: 1}
	if err := r.err(); err != nil || strings.Contains(string(r.report()), "Not all") {
		t.Errorf("before anything failed: %v", err)
	}
	at := place{body: 256, inFlight: 128}
	whole := sample{Requests: 10, PerSecond: 10, P50: 1, P99: 1, CPUMicros: 1, PeakMemory: 1}
	add := func(system string, measured sample, err error) {
		r.add(cell{System: system, InFlight: at.inFlight, Body: at.body, Round: 1}, measured, err)
	}
	add("HTTP only", whole, nil)
	add("fallback", whole, errors.New("it was\ngone"))
	add("article", sample{Errors: 5}, nil)
	r.fail("a call of the AWS Lambda", errors.New("start 1 of 5: boom"))
	r.Function = &functionResult{ExecMB: 7.1, WarmTrips: 1, WarmMS: 21}
	if c := r.cell("fallback", at, 1); c.sample != (sample{Errors: 1}) {
		t.Errorf("a measurement that failed has figures: %+v", c)
	}
	dir := t.TempDir()
	if err := r.save(options{out: dir}); err != nil {
		t.Fatal(err)
	}
	files, err := rendered(dir)
	if err != nil {
		t.Fatal(err)
	}
	report, ended := string(files["RESULTS.md"]), r.err()
	if ended == nil {
		t.Fatal("the run ended well")
	}
	for _, want := range []string{
		"round 1, fallback, 128 in flight, 256 bytes: it was gone",
		"round 1, article, 128 in flight, 256 bytes: none of 5 requests was answered",
		"a call of the AWS Lambda: start 1 of 5: boom",
	} {
		if !strings.Contains(report, "\n- "+want+"\n") || !strings.Contains(ended.Error(), want) {
			t.Errorf("%q is not said in the error %v or in\n%s", want, ended, report)
		}
	}
	for _, want := range []string{
		"| HTTP only | 128 | 10 (10–10) | – | 1.00 | 1.00 | 1 | 1 | 0 |",
		"| fallback | 128 | – | – | – | – | – | – | 1 |",
		"| article | 128 | – | – | – | – | – | – | 6 |", "| program, MB | – | 7.1 | – |",
		"either body size, MB | – | 64 |", "| p50 at half the floor's rate / those of AMQP only and HTTP only | – | " +
			"1.6 |",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("RESULTS.md does not say %q:\n%s", want, report)
		}
	}
}

// TestDeployedFails holds that there is no result of a place in which one start or one call failed.
func TestDeployedFails(t *testing.T) {
	t.Parallel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{amqp: "127.0.0.1:1"}
	for want, start := range map[string]func(string) (deployed, error){
		"start 1 of 2: boom": func(string) (deployed, error) {
			return nil,
				errors.New("boom")
		},
		`start 1 of 2: it answered {"statusCode":503}`: func(string) (deployed,
			error) {
			return answering(`{"statusCode":503}`), nil
		},
		"start 1 of 2: it answered without the broker": func(string) (deployed,
			error) {
			return answering(`{"statusCode":202}`), nil
		},
	} {
		if result, err := w.deployed(program, 2, "{}", start); result != nil || err == nil || err.Error() != want {
			t.Errorf("got %+v, %v, want %s", result, err, want)
		}
	}
	if result, err := w.deployed(program+" is missing", 2, "{}", nil); result != nil || err == nil {
		t.Errorf("without a program: got %+v, %v", result, err)
	}
}

// answering is a deployed program that has but this answer.
type answering string

func (a answering) Ready() time.Duration { return time.Millisecond }
func (a answering) Close() error         { return nil }
func (a answering) Invoke(context.Context, json.RawMessage) (json.RawMessage, error) {
	return json.RawMessage(a), nil
}

// TestLatenessOfTheSlow holds that a latency which only says how long the run was is nowhere.
func TestLatenessOfTheSlow(t *testing.T) {
	t.Parallel()
	r := run()
	if r.overSum("fallback", p99) == (stats{}) {
		t.Error("fallback kept up, and has none")
	}
	if got := r.overSum("article", p99); got != (stats{}) {
		t.Errorf("article did not keep up: got %v", got)
	}
}

// TestMemoryOfTheDead holds that a process that has ended has no memory, which would be little.
func TestMemoryOfTheDead(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{pid: cmd.Process.Pid, cmd: cmd}
	if mb, _, err := p.memory(); err != nil || mb <= 0 {
		t.Errorf("alive: %v MB, %v", mb, err)
	}
	_ = cmd.Process.Kill()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) { // a zombie, since nobody waits for it
		_, mb, err := p.memory()
		if err != nil {
			break
		}
		if time.Now().After(end) {
			t.Errorf("dead: %v MB", mb)
			break
		}
	}
	_ = cmd.Wait()
	if mb, _, err := p.memory(); err == nil {
		t.Errorf("gone: %v MB", mb)
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
