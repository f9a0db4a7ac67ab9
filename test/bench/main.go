// Command bench measures Fallback beside what it is made of and beside the other ways: AMQP only, HTTP only, the floor
// that the two give (1 / (1/AMQP + 1/HTTP): what a server would reach on the same cores that adds nothing), the
// article's program, and RabbitMQ's own HTTP API. The drain is measured beside its own two, consuming and POSTs, and
// over a long queue. It is a benchmark and not a test: nothing fails on a slow machine. What could not be measured has
// no figure, is named in the results, and makes the program end with an error, after the rest.
//
// Rounds are interleaved, so that what disturbs the machine disturbs all alike, and ratios are taken within one round.
// `make bench` runs it; results.json has every figure of every round, and RESULTS.md and bench.svg are made from it
// alone (`dist/bench -render` makes them again).
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"fallback/test/harness"
)

// options are the command line.
type options struct {
	rounds, drainRounds int
	soak, long          int
	seconds             float64
	quick, drain        bool
	out                 string
}

func main() {
	var o options
	serve := flag.String("serve", "", "be the server http or article (for the program's own use)")
	addr := flag.String("addr", "", "where that server listens")
	render := flag.Bool("render", false, "measure nothing: make RESULTS.md and bench.svg from results.json")
	flag.IntVar(&o.rounds, "rounds", 11, "how often each cell is measured")
	flag.IntVar(&o.drainRounds, "drain-rounds", 11, "how often each of the drain's is")
	flag.Float64Var(&o.seconds, "seconds", 1.25, "how long a cell is measured")
	flag.IntVar(&o.soak, "soak", 1_000_000, "requests of the memory run; 0 leaves it out")
	flag.IntVar(&o.long, "long", 500_000, "messages of the drain's long queue; 0 leaves it out")
	flag.BoolVar(&o.quick, "quick", false, "one body size, 16, 128 and 512 in flight, nothing written: for work on "+
		"the hot path")
	flag.BoolVar(&o.drain, "drain", false, "the drain only, nothing written: for work on its hot path")
	flag.StringVar(&o.out, "out", filepath.Join(harness.Root(), "test", "bench"),
		"folder of results.json, RESULTS.md and bench.svg")
	flag.Parse()
	var err error
	switch {
	case *serve == "http":
		err = serveHTTPOnly(*addr)
	case *serve == "article":
		err = serveArticle(*addr)
	case *render:
		err = renderFolder(o.out)
	default:
		err = bench(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is the whole run. What was measured is written after each round, so that a run that is cut short loses little.
func bench(o options) error {
	start := time.Now()
	w, err := newWorld(o)
	if err != nil {
		return err
	}
	defer w.broker.Close()
	d := time.Duration(o.seconds * float64(time.Second))
	r := newResults(d, w.broker)
	if o.drain {
		if err := w.emptyQueues(r, o); err != nil {
			return err
		}
		fmt.Print(r.failures() + r.drainTables())
		return r.err()
	}
	for round := 1; round <= o.rounds; round++ {
		for _, at := range o.places() {
			if err := w.compare(r, o, round, at, d); err != nil {
				return err
			}
		}
		r.Rounds = round
		if err := r.save(o); err != nil {
			return err
		}
	}
	// Longer: else a single stall of the disk would be the p99.
	if err := w.atOneRate(r, o, 4*d); err != nil {
		return err
	}
	if !o.quick {
		if err := w.emptyQueues(r, o); err != nil {
			return err
		}
		w.aside(r, o)
	}
	fmt.Fprintf(os.Stderr, "took %s\n", time.Since(start).Round(time.Second))
	fmt.Print(r.table())
	return errors.Join(r.save(o), r.err())
}

// places are where systems are compared at full speed.
func (o options) places() []place {
	if o.quick {
		return []place{{body: 256, inFlight: 16}, {body: 256, inFlight: 128}, {body: 256, inFlight: 512}}
	}
	var all []place
	for _, body := range bodies {
		for _, n := range inFlight {
			all = append(all, place{body: body, inFlight: n})
		}
	}
	return all
}

// compare measures all systems at one place.
func (w *world) compare(r *results, o options, round int, at place, d time.Duration) error {
	compared := systems
	if o.quick {
		compared = systems[:3]
	}
	for _, s := range order(compared, round) {
		c := cell{System: s.name, InFlight: at.inFlight, Body: at.body, Rate: at.rate, Round: round}
		if err := w.measureCell(r, c, func() (sample, error) { return w.sample(s, c, d) }); err != nil {
			return err
		}
	}
	return nil
}

// order is the order of the systems, or drainers, in a round. Each round begins with another one and goes through them
// by another step, so that none always comes after the same one, whose messages the broker may not have done with.
// Every step reaches all, because there are 5 of them, or 3, and both are primes.
func order[T any](systems []T, round int) []T {
	n := len(systems)
	step := 1 + (round-1)%(n-1)
	out := make([]T, n)
	for i := range out {
		out[i] = systems[(round-1+i*step)%n]
	}
	return out
}

// atOneRate offers all systems the same rate, half the floor's at 128 in flight: latency at full speed only mirrors
// throughput.
func (w *world) atOneRate(r *results, o options, d time.Duration) error {
	at := place{body: 256, inFlight: 128}
	at.rate = r.floor(at).median / 2
	if at.rate == 0 {
		r.fail("latency at one offered rate", errors.New("there is no floor at 128 in flight to take it from"))
		return nil
	}
	for round := 1; round <= o.rounds; round++ {
		if err := w.compare(r, o, round, at, d); err != nil {
			return err
		}
		if err := r.save(o); err != nil {
			return err
		}
	}
	return nil
}

// aside measures a call in each of the places to run it, and the server's memory over many requests.
func (w *world) aside(r *results, o options) {
	for _, place := range []struct {
		name    string
		measure func(starts int) (*functionResult, error)
		result  **functionResult
	}{
		{"DigitalOcean Function", w.function, &r.Function}, {"AWS Lambda", w.lambda, &r.Lambda},
		{"server", w.server, &r.Server},
	} {
		var err error
		if *place.result, err = place.measure(o.rounds); err != nil {
			r.fail("a call of the "+place.name, err)
		}
	}
	if o.soak == 0 {
		return
	}
	var err error
	if r.Soak, err = w.soak(o.soak); err != nil {
		r.fail("memory over many requests", err)
	}
}
