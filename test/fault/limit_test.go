//go:build e2e

package fault

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"fallback/test/harness"
)

// limited is a primary that takes so many requests a second, in windows of a second that begin with a request, and
// answers 429 above, with Retry-After: 1.
type limited struct {
	rate int

	mu      sync.Mutex // guards what follows
	window  time.Time
	taken   int // in this window
	over    int // in this window
	windows int
	refused int       // in all of them
	worst   int       // in one of them
	first   time.Time // that one was taken
	last    time.Time
}

func (l *limited) answer(harness.Received) harness.Answer {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.first.IsZero() {
		l.first = now
	}
	if now.Sub(l.window) >= time.Second {
		l.window, l.taken, l.over = now, 0, 0
		l.windows++
	}
	if l.taken == l.rate {
		l.over++
		l.refused++
		l.worst = max(l.worst, l.over)
		return harness.Answer{Status: http.StatusTooManyRequests, RetryAfter: 1}
	}
	l.taken++
	l.last = now
	return harness.Answer{}
}

// replayToLimit holds that a primary which takes 50 a second and answers 429 above gets everything once, and that a
// worker which hears of the limit stops: no more is refused in any window than was under way. In the long run 10,000
// requests wait, else fewer; it takes about the ideal time, and no more than one window's worth is refused in any
// window.
func replayToLimit(t *testing.T, beside lane) {
	beside.enter(t)
	const rate, concurrency, slack, rampUp = 50, 200, 1.25, 2 * time.Second
	most := 500
	if wanted > 0 {
		most = 10_000
	}
	p := plan{seed: seed, name: t.Name(), timeout: 5 * time.Second}
	r := newRig(t, broker, p)
	r.serve(t, p)
	r.load.start(16)
	harness.Eventually(t, "requests to wait", func() bool { return r.ledger.tally().accepted >= most })
	r.load.end()
	r.newOutlet(t, p)
	primary := &limited{rate: rate}
	answer := primary.answer
	r.outlet.answer.Store(&answer)
	n := r.ledger.tally().accepted
	ideal := time.Duration((n-1)/rate) * time.Second // the first window's are taken at once

	ctx, cancel := context.WithTimeout(context.Background(), 5*ideal+harness.Patience)
	defer cancel()
	if err := r.addWorker(t, map[string]string{"FALLBACK_DRAIN_CONCURRENCY": strconv.Itoa(concurrency)}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.drain(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.endDrain(ctx); err != nil {
		t.Error(err)
	}
	a := r.ledger.audit()
	for _, fault := range a.faults(fault{}) {
		t.Error(fault)
	}
	took := primary.last.Sub(primary.first)
	result := rateTest{
		Requests: n, Rate: rate, Ideal: ideal.Seconds(), Took: took.Seconds(),
		Windows: primary.windows, Over: primary.refused, Worst: primary.worst,
	}
	t.Logf("%+v", result)
	if a.Delivered != n || a.Duplicated > 0 {
		t.Errorf("%d of %d delivered, %d of them twice", a.Delivered, n, a.Duplicated)
	}
	if wanted > 0 && took > time.Duration(slack*float64(ideal))+rampUp { // a short run is no measure
		t.Errorf("took %s, the ideal is %s", took, ideal)
	}
	if n := r.outlet.replays().early; n > 0 {
		t.Errorf("%d were sent sooner than the primary had asked", n)
	}
	if primary.refused == 0 {
		t.Error("nothing was refused: the limit was never reached")
	}
	mostOver := concurrency // what was on its way when the first 429 was heard
	if wanted > 0 {
		mostOver = rate
	}
	if primary.worst > mostOver {
		t.Errorf("%d requests over the limit in one window, want %d at most", primary.worst, mostOver)
	}
	if err := results.addRate(result); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		t.Logf("the worker's log:\n%s", tail(r.outlet.workers[0].log.String(), 40))
		t.Error(again(t))
	}
}
