package main

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"fallback/test/harness"
)

// operation does one request and returns when its outcome is known. There is one for each that may be in flight.
type operation func() error

// patience is how long an operation waits for its answer: after it, the request counts as an error.
const patience = 10 * time.Second

// sample is what one cell measured. Requests that failed are counted in Errors and in no other figure.
type sample struct {
	Requests   int     `json:"-"` // answered, those after the end of the time too
	Seconds    float64 `json:"-"`
	PerSecond  float64 `json:"per_second"` // answered within the time
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	Errors     int     `json:"errors"`
	Dropped    int     `json:"-"`             // due at an offered rate and not begun when the time was over
	CPUMicros  float64 `json:"server_cpu_us"` // of the server's process, a request; 0 where there is no server
	PeakMemory float64 `json:"peak_rss_mb"`   // of the server's process since its start
}

// closedLoop runs every operation over and over for the time: as many are in flight as there are operations.
func closedLoop(operations []operation, d time.Duration) sample {
	return measure(operations, d, func(w *worker) {
		for time.Now().Before(w.end) {
			w.request(time.Now())
		}
	})
}

// openLoop offers requests at a fixed rate for the time, whatever their answers do, and measures each from the moment
// it was due: a server that stalls is not spared the requests that would have come meanwhile. Each worker sleeps until
// its own request is due, so requests do not come in bursts. What no worker was free for when the time is over is
// dropped: an open loop into a system that cannot keep up would have no end.
func openLoop(operations []operation, perSecond float64, d time.Duration) sample {
	start := time.Now()
	var taken, begun atomic.Int64
	s := measure(operations, d, func(w *worker) {
		for {
			due := start.Add(time.Duration(float64(taken.Add(1)-1) / perSecond * float64(time.Second)))
			if !due.Before(w.end) || !time.Now().Before(w.end) {
				return
			}
			time.Sleep(time.Until(due))
			begun.Add(1)
			w.request(due)
		}
	})
	s.Dropped = max(0, int(math.Floor(perSecond*d.Seconds()))-int(begun.Load()))
	return s
}

// worker sends the requests of one operation, one after the other, and notes what became of them.
type worker struct {
	do       operation
	end      time.Time
	took     []time.Duration
	inTime   int // answered before the end
	failed   int
	lastFail error
}

// request sends one and measures it from since.
func (w *worker) request(since time.Time) {
	if err := w.do(); err != nil {
		w.failed, w.lastFail = w.failed+1, err
		time.Sleep(10 * time.Millisecond) // what refuses at once is not asked in a tight loop
		return
	}
	now := time.Now()
	w.took = append(w.took, now.Sub(since))
	if !now.After(w.end) {
		w.inTime++
	}
}

// measure runs work once for each operation, side by side, and sums up what their requests took. The throughput is that
// of the time alone: what is answered after it, a long tail where a system is slow, counts for the latencies only.
func measure(operations []operation, d time.Duration, work func(*worker)) sample {
	end := time.Now().Add(d)
	workers := make([]*worker, len(operations))
	var wg sync.WaitGroup
	for i, operation := range operations {
		workers[i] = &worker{do: operation, end: end}
		wg.Go(func() { work(workers[i]) })
	}
	wg.Wait()
	s := sample{Seconds: d.Seconds()}
	var took []time.Duration
	var inTime int
	var lastFail error
	for _, w := range workers {
		took = append(took, w.took...)
		inTime += w.inTime
		s.Errors += w.failed
		lastFail = cmp.Or(w.lastFail, lastFail)
	}
	if lastFail != nil {
		fmt.Fprintf(os.Stderr, "%d requests failed, the last one: %v\n", s.Errors, lastFail)
	}
	slices.Sort(took)
	s.Requests, s.PerSecond = len(took), float64(inTime)/d.Seconds()
	s.P50, s.P99 = harness.Millis(harness.Percentile(took, 50)), harness.Millis(harness.Percentile(took, 99))
	return s
}
