package main

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// soakResult is the server's memory over many requests.
type soakResult struct {
	Requests  int       `json:"requests"`
	Errors    int       `json:"errors"`
	MemoryMB  []float64 `json:"rss_mb"`     // after each tenth
	GrowthMB  float64   `json:"growth_mb"`  // the last tenth less the second; the first is the server warming up
	Verdict   string    `json:"verdict"`    // what that says
	PerSecond float64   `json:"per_second"` // while sending, without what is between the tenths
}

// soak sends n requests, 128 at a time, and looks at the server's memory after each tenth. With one that failed it
// would not have been n.
func (w *world) soak(n int) (*soakResult, error) {
	p, err := startServer(w, "fallback", w.addr)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	r := &soakResult{Requests: n}
	var sending time.Duration
	for tenth := range 10 {
		if err := w.purge(); err != nil {
			return nil, err
		}
		operations, closeAll, err := httpOperations(128, w.addr, "/fallback/orders/42?x=1", "", make([]byte, 256), 202)
		if err != nil {
			return nil, err
		}
		start := time.Now()
		r.Errors += exactly(operations, n*(tenth+1)/10-n*tenth/10).Errors
		sending += time.Since(start)
		closeAll()
		memory, _, err := p.memory()
		if err != nil {
			return nil, err
		}
		r.MemoryMB = append(r.MemoryMB, memory)
		fmt.Fprintf(os.Stderr, "soak: %d requests, %.1f MB resident\n", n*(tenth+1)/10, memory)
	}
	r.PerSecond = float64(n-r.Errors) / sending.Seconds()
	r.judge()
	if r.Errors > 0 {
		return nil, fmt.Errorf("%d of %d requests failed; the server's memory after each tenth was, in MB: %.1f",
			r.Errors, n, r.MemoryMB)
	}
	return r, nil
}

// exactly sends n requests, spread over the operations.
func exactly(operations []operation, n int) sample {
	var left atomic.Int64
	left.Store(int64(n))
	return measure(operations, time.Hour, func(w *worker) {
		for left.Add(-1) >= 0 {
			w.request(time.Now())
		}
	})
}

// judge says whether memory grew. A tenth more is what a garbage collector's rhythm does; a leak of 100 bytes a request
// is 80 MB over the 800,000 requests between.
func (r *soakResult) judge() {
	second, last := r.MemoryMB[1], r.MemoryMB[len(r.MemoryMB)-1]
	r.GrowthMB = last - second
	r.Verdict = "no growth"
	if r.GrowthMB > second/10 {
		r.Verdict = "it grew"
	}
}
