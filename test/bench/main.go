// Command bench measures Fallback beside what it is made of and beside the other ways: AMQP only, HTTP only, the floor
// that the two give (1 / (1/AMQP + 1/HTTP): what a server would reach on the same cores that adds nothing), the article's
// program, and RabbitMQ's own HTTP API. It is a benchmark and not a test: nothing fails on a slow machine.
//
// Rounds are interleaved, so that what disturbs the machine disturbs all alike, and ratios are taken within one run.
// `make bench` runs it; results.json has every figure of every round, RESULTS.md and bench.svg are made from it.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// world is what every cell needs.
type world struct {
	self, fallback string // programs
	amqpURL        string
	management     string // host:port
	addr           string // of the server under measurement
	broker         *harness.Broker
}

// cell is one measurement.
type cell struct {
	System   string  `json:"system"`
	InFlight int     `json:"in_flight"`
	Body     int     `json:"body_bytes"`
	Rate     float64 `json:"offered_per_second,omitempty"` // 0 is a closed loop
	Round    int     `json:"round"`
	sample
}

func main() {
	serve := flag.String("serve", "", "be the server http or article (for the program's own use)")
	addr := flag.String("addr", "", "where that server listens")
	rounds := flag.Int("rounds", 5, "how often each cell is measured")
	seconds := flag.Float64("seconds", 1.5, "how long a cell is measured")
	soak := flag.Int("soak", 1_000_000, "requests of the memory run; 0 leaves it out")
	quick := flag.Bool("quick", false, "one body size, 128 and 512 in flight, nothing written: for work on the hot path")
	flag.Parse()
	var err error
	switch *serve {
	case "http":
		err = serveHTTPOnly(*addr)
	case "article":
		err = serveArticle(*addr)
	default:
		err = bench(*rounds, time.Duration(*seconds*float64(time.Second)), *soak, *quick)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(rounds int, d time.Duration, soak int, quick bool) error {
	w, err := newWorld()
	if err != nil {
		return err
	}
	defer w.broker.Close()
	bodies, inFlight := []int{256, 16 << 10}, []int{1, 16, 128, 512}
	if quick {
		bodies, inFlight = []int{256}, []int{128, 512}
	}
	r := newResults(rounds, d)
	for round := 1; round <= rounds; round++ {
		for _, body := range bodies {
			for _, n := range inFlight {
				for _, s := range systems {
					if quick && (s.name == "article" || s.name == "RabbitMQ HTTP API") {
						continue
					}
					c, err := w.run(s, cell{System: s.name, InFlight: n, Body: body, Round: round}, d)
					if err != nil {
						return fmt.Errorf("%s, %d in flight, %d bytes: %w", s.name, n, body, err)
					}
					r.add(c)
				}
			}
		}
	}
	if err := w.atOneRate(r, rounds, 2*d); err != nil {
		return err
	}
	if quick {
		fmt.Print(r.table())
		return nil
	}
	if r.Function, err = w.function(rounds); err != nil {
		return err
	}
	if soak > 0 {
		if r.Soak, err = w.soak(soak); err != nil {
			return err
		}
	}
	return r.write(filepath.Join(harness.Root(), "test", "bench"))
}

func newWorld() (*world, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	fallback := filepath.Join(harness.Root(), "dist", "fallback")
	if _, err := os.Stat(fallback); err != nil {
		return nil, fmt.Errorf("%w: run make build first", err)
	}
	fmt.Fprintln(os.Stderr, "starting RabbitMQ", harness.Version())
	broker, err := harness.StartBroker(harness.BrokerOptions{})
	if err != nil {
		return nil, err
	}
	// The container's own address: through the published port, every byte would pass one more process.
	ip := broker.IP()
	return &world{
		self: self, fallback: fallback, broker: broker, management: ip + ":15672", addr: harness.FreeAddress(),
		amqpURL: "amqp://" + topology.Admin + ":" + topology.Demonstration(topology.Admin).Plain + "@" + ip + ":5672/",
	}, nil
}

// run measures one cell, with a server that has just been started and an empty queue.
func (w *world) run(s system, c cell, d time.Duration) (cell, error) {
	if err := w.purge(); err != nil {
		return c, err
	}
	var p *process
	if s.server != nil {
		var err error
		if p, err = startServer(w, s.server[0], w.addr); err != nil {
			return c, err
		}
		defer p.stop()
	}
	operations, closeAll, err := s.open(w, c.InFlight, make([]byte, c.Body))
	if err != nil {
		return c, err
	}
	defer closeAll()
	run := func(d time.Duration) (sample, error) {
		if c.Rate > 0 {
			return openLoop(operations, c.Rate, d)
		}
		return closedLoop(operations, d)
	}
	if _, err := run(d / 4); err != nil { // warm up
		return c, err
	}
	if p == nil {
		c.sample, err = run(d)
		return c, err
	}
	p.resetPeak()
	before, err := p.cpu()
	if err != nil {
		return c, err
	}
	if c.sample, err = run(d); err != nil {
		return c, err
	}
	after, err := p.cpu()
	c.CPUMicros = float64((after - before).Microseconds()) / float64(c.Requests)
	c.PeakMemory = p.peakMemory()
	return c, err
}

// atOneRate offers all systems that can take it the same rate, half the floor's at 128 in flight: latency at full speed
// only mirrors throughput.
func (w *world) atOneRate(r *results, rounds int, d time.Duration) error {
	rate := r.floor(256, 128) / 2
	for round := 1; round <= rounds; round++ {
		for _, s := range systems[:3] {
			c, err := w.run(s, cell{System: s.name, InFlight: 128, Body: 256, Rate: rate, Round: round}, d)
			if err != nil {
				return fmt.Errorf("%s at %.0f/s: %w", s.name, rate, err)
			}
			r.add(c)
		}
	}
	return nil
}

// soakResult is the server's memory over many requests.
type soakResult struct {
	Requests  int       `json:"requests"`
	MemoryMB  []float64 `json:"rss_mb"` // after each tenth
	PerSecond float64   `json:"per_second"`
}

// soak sends n requests, 128 at a time, and looks at the server's memory after each tenth.
func (w *world) soak(n int) (*soakResult, error) {
	p, err := startServer(w, "fallback", w.addr)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	result := &soakResult{Requests: n}
	start := time.Now()
	for range 10 {
		if err := w.purge(); err != nil {
			return nil, err
		}
		operations, closeAll, err := httpOperations(128, w.addr, "/fallback/orders/42?x=1", "", make([]byte, 256), 202)
		if err != nil {
			return nil, err
		}
		_, err = measure(operations, func(_ time.Time, _ int, do func(time.Time) error) error {
			for range n / 10 / len(operations) {
				if err := do(time.Now()); err != nil {
					return err
				}
			}
			return nil
		})
		closeAll()
		if err != nil {
			return nil, err
		}
		result.MemoryMB = append(result.MemoryMB, p.rss())
		fmt.Fprintf(os.Stderr, "soak: %d requests, %.1f MB resident\n", len(result.MemoryMB)*n/10, p.rss())
	}
	result.PerSecond = float64(n) / time.Since(start).Seconds()
	return result, nil
}

func (w *world) purge() error {
	conn, err := amqp.Dial(w.amqpURL)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	_, err = ch.QueuePurge(topology.DefaultQueue, false)
	return err
}
