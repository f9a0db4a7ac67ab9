package harness

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestElapsed holds what counts against a server and what does not.
func TestElapsed(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		took, late time.Duration
		over       bool
	}{
		{time.Second, 0, false},
		{3 * time.Second, 0, true},
		{3 * time.Second, time.Second, false},
		{3 * time.Second, 900 * time.Millisecond, true},
	} {
		e := Elapsed{row.took, row.late}
		if e.Over(2*time.Second) != row.over {
			t.Errorf("%s is over 2s: %t, want %t", e, !row.over, row.over)
		}
		if says := strings.Contains(e.String(), "own late timers"); says != (row.late > 0) {
			t.Errorf("%q", e)
		}
	}
}

// TestLateTimersAreSeen stops this whole process for a while.
func TestLateTimersAreSeen(t *testing.T) {
	const stop = 500 * time.Millisecond
	w := StartWatch()
	command := fmt.Sprintf("kill -STOP %[1]d; sleep %[2]f; kill -CONT %[1]d", os.Getpid(), stop.Seconds())
	if err := exec.Command("sh", "-c", command).Run(); err != nil {
		t.Fatal(err)
	}
	if e := w.Elapsed(); e.Late < stop/2 || e.Late > e.Took {
		t.Errorf("it stood still for %s, and took %s", stop, e)
	}
}

// TestStalls holds which of them counts: the longest, as far as it is within the time that is looked at.
func TestStalls(t *testing.T) {
	t.Parallel()
	now := clock()
	h := &heart{due: now + time.Hour, stalls: []stall{
		{now - 20*time.Second, 9 * time.Second}, {now - 10*time.Second, 2 * time.Second},
		{now - 5*time.Second, time.Second},
	}}
	for since, want := range map[time.Duration]time.Duration{
		time.Second: 0, 6 * time.Second: time.Second, 11 * time.Second: time.Second, 15 * time.Second: 2 * time.Second,
		time.Minute: 9 * time.Second,
	} {
		if got := h.longest(now - since); got != want {
			t.Errorf("in the last %s: got %s, want %s", since, got, want)
		}
	}
	h.due = now - time.Hour
	if got := h.longest(now - time.Second); got < time.Second || got > time.Minute {
		t.Errorf("a beat that is late still: got %s, want all of the last second", got)
	}
}

// TestWatchInVirtualTime holds that the time of a test is its own, and how late the process is, the real one.
func TestWatchInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := StartWatch()
		time.Sleep(time.Hour)
		if e := w.Elapsed(); e.Took != time.Hour || e.Late > time.Minute {
			t.Errorf("got %s, want an hour", e)
		}
	})
}

// TestPromisesAreHeld holds that a time that is promised is a bar, with room, and that waiting comes to an end.
func TestPromisesAreHeld(t *testing.T) {
	const promised = time.Minute
	hold := func(took time.Duration) func(testing.TB) {
		return func(t testing.TB) {
			w := StartWatch()
			time.Sleep(took)
			w.Hold(t, promised, "it")
		}
	}
	after := func(took time.Duration, wait func(t testing.TB, ask func() bool)) func(testing.TB) {
		return func(t testing.TB) {
			begin := time.Now()
			wait(t, func() bool { return time.Since(begin) >= took })
		}
	}
	within := func(t testing.TB, ask func() bool) { Within(t, promised, "it", ask) }
	eventually := func(t testing.TB, ask func() bool) { Eventually(t, "it", ask) }
	for name, row := range map[string]struct {
		do    func(testing.TB)
		fails bool
	}{
		"held":              {hold(promised), false},
		"held, with room":   {hold(promised + Slack), false},
		"too late":          {hold(promised + Slack + time.Minute), true},
		"within":            {after(promised, within), false},
		"not within":        {after(promised+Slack+time.Minute, within), true},
		"late, nobody says": {after(Patience-time.Minute, eventually), false},
		"never":             {after(Patience+time.Minute, eventually), true},
	} {
		synctest.Test(t, func(t *testing.T) {
			said := &verdict{TB: t}
			done := make(chan struct{})
			go func() {
				defer close(done)
				row.do(said)
			}()
			<-done
			if said.failed != row.fails {
				t.Errorf("%s: it failed: %t, want %t", name, said.failed, row.fails)
			}
		})
	}
}

// verdict is a test that is told to fail.
type verdict struct {
	testing.TB
	failed bool
}

func (v *verdict) Helper()               {}
func (v *verdict) Errorf(string, ...any) { v.failed = true }
func (v *verdict) Fatalf(string, ...any) {
	v.failed = true
	runtime.Goexit()
}
