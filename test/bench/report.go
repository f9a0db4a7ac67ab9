package main

import (
	"bytes"
	"fmt"
	"strings"
)

// report is RESULTS.md.
func (r *results) report() []byte {
	const top = "<!-- Made by `make bench` from results.json; `dist/bench -render` makes it again. -->\n\n# What " +
		"Fallback reaches\n\n"
	return []byte(top + r.table())
}

// table is the run as Markdown.
func (r *results) table() string {
	r.summarize()
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s, commit %s, %s cores (%s), RabbitMQ %s, %s. Medians of %d rounds of %g s each, interleaved; "+
		"spread in brackets; peak memory is the most of all rounds. "+
		"Load generator, server and broker share the cores: what counts are the ratios, which are taken within each "+
		"round.\n\n",
		r.Made, r.Versions["commit"], r.Machine["cores"], r.Machine["cpu"], r.Versions["rabbitmq"], r.Versions["go"],
		r.Rounds, r.Seconds)
	b.WriteString(r.failures())
	fmt.Fprint(&b, "![Requests a second and p99 over requests in flight](bench.svg)\n\n")
	for _, s := range systems {
		fmt.Fprintf(&b, "- **%s**: %s\n", s.name, s.about)
	}
	fmt.Fprint(&b, "- **floor**: 1 / (1/AMQP + 1/HTTP), what a server would reach that adds nothing to the two\n\n")
	for _, body := range bodies {
		r.throughputTable(&b, body)
	}
	r.latencyTable(&b)
	b.WriteString(r.drainTables())
	r.summaryTable(&b)
	r.placesTable(&b)
	return b.String()
}

// failures are what could not be measured; nothing where all was.
func (r *results) failures() string {
	if len(r.Failed) == 0 {
		return ""
	}
	return "**Not all of it was measured.** These have no part in the figures below:\n\n- " +
		strings.Join(r.Failed, "\n- ") + "\n\n"
}

func (r *results) throughputTable(b *bytes.Buffer, body int) {
	of := func(c cell) bool { return c.Body == body && c.Rate == 0 && c.Waiting == 0 }
	if !r.measured(of) {
		return
	}
	failed := r.measured(func(c cell) bool { return c.Errors > 0 && of(c) })
	fmt.Fprintf(b, "## Requests a second, bodies of %d bytes\n\n", body)
	head := []string{"", "in flight", "requests/s", "of the floor", "p50 ms", "p99 ms", "server CPU µs", "peak MB"}
	if failed {
		head = append(head, "errors")
	}
	heading(b, head...)
	for _, n := range inFlight {
		at := place{body: body, inFlight: n}
		for _, s := range systems {
			if !r.measured(func(c cell) bool { return c.System == s.name && c.at() == at }) {
				continue
			}
			figures := r.figures(s, at)
			if failed {
				figures = append(figures, fmt.Sprint(r.errors(s.name, at)))
			}
			row(b, figures...)
		}
		if f := r.floor(at); f.median > 0 {
			figures := []string{"**floor**", fmt.Sprint(n), whole(f), "1", "", "", "", ""}
			if failed {
				figures = append(figures, "")
			}
			row(b, figures...)
		}
	}
	if failed {
		fmt.Fprintln(b, "\nErrors, of all rounds, are requests that failed; they are in no other figure.")
	}
	fmt.Fprintln(b)
}

// figures are one row of the throughput table.
func (r *results) figures(s system, at place) []string {
	cpu, memory := "", ""
	if s.server != "" {
		cpu = number("%.0f", r.of(s.name, at, cpuMicros).median)
		memory = number("%.0f", r.of(s.name, at, peakMemory).most)
	}
	return []string{
		s.name, fmt.Sprint(at.inFlight), whole(r.of(s.name, at, perSecond)), hundredths(r.overFloor(s.name, at)),
		number("%.2f", r.of(s.name, at, p50).median), number("%.2f", r.of(s.name, at, p99).median), cpu, memory,
	}
}

func (r *results) latencyTable(b *bytes.Buffer) {
	at := r.atRate()
	if at.rate < 0 {
		return
	}
	fmt.Fprintf(b, "## Latency at one offered rate: %.0f requests/s, half the floor at 128 in flight\n\n", at.rate)
	fmt.Fprint(b, "Measured from the moment a request was due. The sum is that of AMQP only and HTTP only.\n\n")
	heading(b, "", "reached/s", "p50 ms", "p99 ms", "p50 / the sum", "p99 / the sum", "errors")
	slow := false
	for _, s := range systems {
		if !r.measured(func(c cell) bool { return c.System == s.name && c.at() == at }) {
			continue
		}
		reached := r.of(s.name, at, perSecond)
		late, median, overP50, overP99 := "–", "–", "–", "–"
		if reached.median >= keepsUp*at.rate {
			median, late = fmt.Sprintf("%.2f", r.of(s.name, at, p50).median), hundredths(r.of(s.name, at, p99))
			overP50, overP99 = hundredths(r.overSum(s.name, p50)), hundredths(r.overSum(s.name, p99))
		} else {
			slow = true
		}
		row(b, s.name, whole(reached), median, late, overP50, overP99, fmt.Sprint(r.errors(s.name, at)))
	}
	if slow {
		fmt.Fprint(b, "\n–: did not keep up. It was offered the rate for the time, and what was not begun by then "+
			"was dropped; "+
			"its latency would say how long the run was, and nothing else.\n")
	}
	fmt.Fprintln(b)
}

// isDrained says whether the drain was measured.
func (r *results) isDrained() bool { return r.measured(func(c cell) bool { return c.Waiting > 0 }) }

func (r *results) drainTables() string {
	if !r.isDrained() {
		return ""
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "## The drain\n\nMessages wait on the queue, and the primary answers at once. Medians of %d "+
		"rounds. Each is measured as a whole: from the first connection to the broker "+
		"until all are acked, from the first to the last POST, and, for the drain, what its report says: "+
		"connecting, the probe, its begin with one in flight, "+
		"and the look at the end whether anything is left, included.\n\n", r.DrainRounds)
	for _, d := range drainers {
		fmt.Fprintf(&b, "- **%s**: %s\n", d.name, d.about)
	}
	fmt.Fprint(&b, "- **floor**: 1 / (1/consume + 1/POST), what a drain would reach that adds nothing to the two\n\n")
	heading(&b, "", "body, bytes", "in flight", "waiting", "requests/s", "of the floor", "drain CPU µs", "peak MB",
		"errors")
	for _, at := range drained {
		where := []string{fmt.Sprint(at.body), fmt.Sprint(at.inFlight), fmt.Sprint(at.waiting)}
		for _, d := range drainers {
			cpu, memory := "", ""
			if d.name == "drain" {
				cpu = number("%.0f", r.of(d.name, at, cpuMicros).median)
				memory = number("%.0f", r.of(d.name, at, peakMemory).most)
			}
			row(&b, append(append([]string{d.name}, where...), whole(r.of(d.name, at, perSecond)),
				hundredths(r.overFloor(d.name, at)),
				cpu, memory, fmt.Sprint(r.errors(d.name, at)))...)
		}
		row(&b, append(append([]string{"**floor**"}, where...), whole(r.floor(at)), "1", "", "", "")...)
	}
	fmt.Fprintln(&b)
	if l := r.Long; l != nil {
		fmt.Fprintf(&b, "While it drains %d of %d bytes, %d in flight, requests/s were, in each tenth: %s.\n\n",
			l.Waiting, drained[0].body, drained[0].inFlight, strings.Trim(fmt.Sprintf("%.0f", l.PerSecond), "[]"))
	}
	return b.String()
}

func (r *results) summaryTable(b *bytes.Buffer) {
	fmt.Fprint(b, "## Beside what was to be reached\n\n")
	heading(b, "", "", "to reach")
	at := func(n int) place { return place{body: 256, inFlight: n} }
	for _, bar := range []struct {
		n     int
		reach string
	}{{16, "0.9"}, {128, "0.95"}, {512, "0.95"}} {
		row(b, fmt.Sprintf("server / floor, %d in flight", bar.n), hundredths(r.overFloor("fallback", at(bar.n))),
			bar.reach)
	}
	row(b, "p50 at half the floor's rate / those of AMQP only and HTTP only", hundredths(r.overSum("fallback", p50)),
		"1.6")
	row(b, "p99, likewise", hundredths(r.overSum("fallback", p99)), "–")
	row(b, "server / the article's way, 128 in flight", whole(r.ratio("fallback", "article", at(128), perSecond)), "25")
	row(b, "peak resident memory, 512 in flight, either body size, MB", number("%.0f", r.Summary["rss_mb_512"]), "64")
	if r.isDrained() {
		for _, at := range drained[:2] {
			row(b, fmt.Sprintf("drain / its floor, %d in flight", at.inFlight), hundredths(r.overFloor("drain", at)),
				"0.85")
		}
	}
	if l := r.Long; l != nil {
		row(b, fmt.Sprintf("drain of %d waiting, requests/s in the last tenth / in the second", l.Waiting),
			number("%.2f", l.lateOverEarly()), "0.8")
	}
	if f := r.Function; f != nil {
		row(b, "function: exec, MB", fmt.Sprintf("%.1f", f.ExecMB), "10")
		row(b, "function: start to ready, ms", fmt.Sprintf("%.0f", f.ReadyMS), "150")
		row(b, fmt.Sprintf("function: a cold call, round trips of %s to the broker", roundTrip),
			fmt.Sprintf("%d (%.0f ms)", f.ColdTrips, f.ColdMS), "8")
		row(b, fmt.Sprintf("function: a warm call, ms beyond its %d round trip (%.1f ms to an echo)", f.WarmTrips,
			f.TripMS), fmt.Sprintf("%.1f", f.WarmMS-f.TripMS), "2")
	}
	if f := r.Lambda; f != nil && f.EndMS > 0 {
		row(b, "Lambda: SIGTERM to the end, the longest, ms", fmt.Sprintf("%.0f", f.EndMS), "500")
	}
	s := r.Soak
	if s == nil {
		return
	}
	row(b, fmt.Sprintf("resident memory over %d requests, last tenth less the second, MB", s.Requests),
		fmt.Sprintf("%+.1f: %s", s.GrowthMB, s.Verdict), "no growth")
	fmt.Fprintf(b, "\nOver the %d requests (%.0f/s, %d errors) the server's resident memory was, after each tenth "+
		"(MB):", s.Requests, s.PerSecond, s.Errors)
	for _, mb := range s.MemoryMB {
		fmt.Fprintf(b, " %.0f", mb)
	}
	fmt.Fprintln(b, ". More than a tenth above the second is growth.")
}

func (r *results) measured(is func(cell) bool) bool {
	for _, c := range r.Cells {
		if is(c) {
			return true
		}
	}
	return false
}

// errors are a system's in all rounds.
func (r *results) errors(system string, at place) (n int) {
	for _, c := range r.Cells {
		if c.System == system && c.at() == at {
			n += c.Errors
		}
	}
	return n
}

func heading(b *bytes.Buffer, columns ...string) {
	row(b, columns...)
	fmt.Fprintln(b, "| --- |"+strings.Repeat(" ---: |", len(columns)-1))
}

func row(b *bytes.Buffer, columns ...string) {
	fmt.Fprintf(b, "| %s |\n", strings.Join(columns, " | "))
}

func whole(s stats) string { return spreadOut("%.0f", s) }

func hundredths(s stats) string { return spreadOut("%.2f", s) }

// spreadOut is a median and, in brackets, its spread; – of nothing.
func spreadOut(format string, s stats) string {
	if s == (stats{}) {
		return "–"
	}
	return fmt.Sprintf(format+" ("+format+"–"+format+")", s.median, s.least, s.most)
}

// number is a value, – where there is none: no figure here can be 0.
func number(format string, value float64) string {
	if value == 0 {
		return "–"
	}
	return fmt.Sprintf(format, value)
}
