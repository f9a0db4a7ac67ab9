package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// longResult is the drain's rate from the begin of a long queue to its end.
type longResult struct {
	Waiting   int       `json:"waiting"`
	PerSecond []float64 `json:"per_second"` // in each tenth
}

// lateOverEarly is the rate of the last tenth over that of the second; the first has the drain's own begin in it.
func (l *longResult) lateOverEarly() float64 { return quotient(l.PerSecond[9], l.PerSecond[1]) }

// longQueue drains a queue of n messages, with a primary here, which notes when each of them comes.
func (w *world) longQueue(n int) (*longResult, error) {
	if err := w.purge(); err != nil {
		return nil, err
	}
	at := drained[0]
	at.waiting = n
	begin := time.Now()
	if err := w.fill(at); err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "long queue: %d wait after %s\n", n, time.Since(begin).Round(time.Second))
	ln, err := net.Listen("tcp", w.addr)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards came
	came := make([]time.Time, 0, n)
	primary := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost { // and no probe
			mu.Lock()
			came = append(came, time.Now())
			mu.Unlock()
		}
		answerAtOnce(w, r)
	})}
	defer primary.Close()
	go func() { _ = primary.Serve(ln) }()
	w.settle()
	if _, err := runDrain(w, at); err != nil {
		return nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	l := &longResult{Waiting: n, PerSecond: rates(came)}
	fmt.Fprintf(os.Stderr, "long queue: %.0f/s in each tenth\n", l.PerSecond)
	return l, nil
}

// rates are the requests a second in each tenth of them.
func rates(came []time.Time) []float64 {
	perSecond := make([]float64, 10)
	for i := range perSecond {
		from, to := i*(len(came)-1)/10, (i+1)*(len(came)-1)/10
		perSecond[i] = quotient(float64(to-from), came[to].Sub(came[from]).Seconds())
	}
	return perSecond
}
