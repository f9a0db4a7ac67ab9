package harness

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// There are three kinds of time in tests, each with its place. What comes by itself, in a time that nobody is
// promised, is waited for with Eventually. What is promised, or what the product has a timer for, is held with a
// Watch, or Within. What is only measured (a rate, a percentile, how long a drain takes) is a figure of `make fault`
// and `make bench`: no test of `make test` compares it.
const (
	// Patience bounds every wait for what comes by itself: a container, a command, a message. It is long, so that no
	// machine is too slow for it.
	Patience = 5 * time.Minute
	// Slack is what a machine that is five times slower and busy may add to a time that is promised. The promise is a
	// deadline or an interval, which the product has a timer for; the rest is work.
	Slack = 4 * time.Second
)

// Eventually asks until the answer is yes, and fails the test when it is not within Patience.
func Eventually(t testing.TB, what string, ask func() bool) {
	t.Helper()
	for w := StartWatch(); !ask(); time.Sleep(20 * time.Millisecond) {
		if e := w.Elapsed(); e.Over(Patience) {
			t.Fatalf("waited in vain for %s: %s", what, e)
		}
	}
}

// Within asks until the answer is yes, and fails the test when it is not within a time that is promised, and Slack.
func Within(t testing.TB, promised time.Duration, what string, ask func() bool) {
	t.Helper()
	for w := StartWatch(); !ask(); time.Sleep(20 * time.Millisecond) {
		if e := w.Elapsed(); e.Over(promised + Slack) {
			t.Fatalf("waited in vain for %s, promised within %s: %s", what, promised, e)
		}
	}
}

// Watch measures a time, and by how much this process's own timers were late meanwhile: a client that did not get to
// run is no evidence against the server.
type Watch struct {
	began time.Time
	at    time.Duration // the same, on the system's clock
}

// StartWatch starts one.
func StartWatch() Watch { return Watch{time.Now(), clock()} }

// Elapsed is the time since the start.
func (w Watch) Elapsed() Elapsed {
	e := Elapsed{Took: time.Since(w.began)}
	if e.Took > noLimit {
		// A client is late when it sends and when it reads, once each. It is bounded: a server that a test has in its
		// own process would be excused for what it does to that.
		e.Late = min(2*pulse.longest(w.at), e.Took, Slack)
	}
	return e
}

// noLimit is shorter than every time that a test holds: what is within it needs no excuse.
const noLimit = 200 * time.Millisecond

// Hold fails the test when what was promised within a time took longer than that and Slack. Where this process was late
// itself, it says so, and the time is not counted.
func (w Watch) Hold(t testing.TB, promised time.Duration, what string) {
	t.Helper()
	switch e := w.Elapsed(); {
	case e.Over(promised + Slack):
		t.Errorf("%s took %s, promised within %s", what, e, promised)
	case e.Took > promised+Slack:
		t.Logf("%s took %s, promised within %s: not counted", what, e, promised)
	}
}

// Elapsed is a time that has gone by.
type Elapsed struct {
	Took time.Duration
	// Late is how much of Took may be this process's own doing, by what its timers were late.
	Late time.Duration
}

// Over says that it was longer than limit, and not because this process was late.
func (e Elapsed) Over(limit time.Duration) bool { return e.Took-e.Late > limit }

func (e Elapsed) String() string {
	s := e.Took.Round(time.Millisecond).String()
	if e.Late > 0 {
		s += ", of which " + e.Late.Round(time.Millisecond).String() + " by this process's own late timers"
	}
	return s
}

// pulse beats for as long as this process lives, and remembers by how much its beats were late. It starts with the
// process, for a test in virtual time may be the first to ask, and what such a test starts must end with it.
var pulse = startHeart()

// A beat that comes less than a beat late is in time.
const beat = 20 * time.Millisecond

// heart goes by the system's clock, which is the real one in a test in virtual time, too.
type heart struct {
	mu     sync.Mutex    // guards what follows
	due    time.Duration // the next beat, on that clock
	stalls []stall       // the last ones, the newest last
}

// stall is a beat that was late.
type stall struct{ end, late time.Duration }

// stallsKept is for far longer than a watch runs: on a busy machine there are some twenty in a second.
const stallsKept = 5000

func startHeart() *heart {
	h := &heart{due: clock() + beat}
	go func() {
		for {
			time.Sleep(beat)
			h.mu.Lock()
			if late := h.overdue(); late > 0 {
				h.stalls = append(h.stalls, stall{clock(), late})
			}
			if len(h.stalls) > 2*stallsKept {
				h.stalls = append([]stall(nil), h.stalls[stallsKept:]...)
			}
			h.due = clock() + beat
			h.mu.Unlock()
		}
	}()
	return h
}

// longest is that of the stalls since a time; each counts from then on.
func (h *heart) longest(since time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := clock()
	longest := min(h.overdue(), now-since)
	for i := len(h.stalls) - 1; i >= 0 && h.stalls[i].end > since; i-- {
		longest = max(longest, min(h.stalls[i].late, h.stalls[i].end-since))
	}
	return longest
}

// overdue is by how much the next beat is late already. It needs mu.
func (h *heart) overdue() time.Duration {
	if late := clock() - h.due; late > beat {
		return late
	}
	return 0
}

func clock() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err)
	}
	return time.Duration(now.Nano())
}
