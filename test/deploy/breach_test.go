package deploy_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fallback/test/deploy"
	"fallback/test/harness"
)

func TestStartRefuses(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		fake, want string
		init       time.Duration
	}{
		{fake: "mute", want: "no ack within 200ms", init: 200 * time.Millisecond},
		{fake: "nack", want: `the ack is "{\"ok\":false}"`},
		{fake: "babble", want: `the ack is "hello"`},
		{fake: "stillborn", want: `the function exited: exit status 1; its output: "no broker\n`},
	} {
		t.Run(row.fake, func(t *testing.T) {
			t.Parallel()
			f, err := deploy.Start(t.Context(), config(t, row.fake, func(c *deploy.Config) { c.Init = row.init }))
			if !errors.Is(err, deploy.ErrStart) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
			if f != nil {
				f.Close()
			}
		})
	}
}

func TestStartRefusesWhatIsNoProgram(t *testing.T) {
	t.Parallel()
	if _, err := deploy.Start(t.Context(), deploy.Config{Exec: filepath.Join(t.TempDir(), "exec")}); !errors.Is(err,
		deploy.ErrStart) {
		t.Errorf("got %v, want %v", err, deploy.ErrStart)
	}
	if _, err := deploy.Start(t.Context(), config(t, "echo", func(c *deploy.Config) { c.Web = "true" })); err == nil {
		t.Error("web: true is modelled?")
	}
}

// Each fake breaks one rule, and the breach is seen when it is made.
func TestBreachesAreReported(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		fake    string
		is      error
		want    string
		timeout time.Duration
		grace   time.Duration
	}{
		{fake: "no end on stdout", is: deploy.ErrProtocol, want: "no " + sentinel + " on stdout",
			grace: 500 * time.Millisecond},
		{fake: "no end on stderr", is: deploy.ErrProtocol, want: "no " + sentinel + " on stderr",
			grace: 500 * time.Millisecond},
		{fake: "no line for the end", is: deploy.ErrProtocol, want: "no " + sentinel + " on stdout",
			grace: 500 * time.Millisecond},
		{fake: "junk before", is: deploy.ErrProtocol, want: "fd 3 has"},
		{fake: "null", is: deploy.ErrProtocol, want: `fd 3 has "null", want a JSON object`},
		{fake: "array", is: deploy.ErrProtocol, want: `fd 3 has "[]", want a JSON object`},
		{fake: "text", is: deploy.ErrProtocol, want: `fd 3 has "oops", want a JSON object`},
		{fake: "exit", is: deploy.ErrExited, want: "exit status 3"},
		{fake: "panic", is: deploy.ErrExited, want: "exit status 2"},
		{fake: "hang", is: deploy.ErrTimeout, want: "time limit of 500ms", timeout: 500 * time.Millisecond},
		{fake: "deaf", is: deploy.ErrTimeout, want: "time limit of 500ms", timeout: 500 * time.Millisecond},
	} {
		t.Run(row.fake, func(t *testing.T) {
			t.Parallel()
			f := start(t, row.fake, grace(row.grace), timeout(cmp.Or(row.timeout, time.Minute)))
			pid := f.PID()
			big := json.RawMessage(`{"a":"` + strings.Repeat("x", 300<<10) + `"}`) // more than a pipe holds
			result, err := f.Invoke(t.Context(), big)
			if !errors.Is(err, row.is) || !strings.Contains(err.Error(), row.want) || result != nil {
				t.Errorf("got %.100s, %v; want %v: %q", result, err, row.is, row.want)
			}
			if faults := f.Faults(); len(faults) != 1 || faults[0] != err {
				t.Errorf("the faults are %v", faults)
			}
			if alive(pid) || f.PID() != 0 {
				t.Error("the process is still there")
			}
		})
	}
}

// These breaches come after the answer. They are seen by this invocation if they are quick, or later, but always.
func TestLateBreachesAreReportedInTheEnd(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		fake, want string
		grace      time.Duration
	}{
		{fake: "two ends", want: "2 sentinels on std"},
		{fake: "answer twice", want: "fd 3 has"},
		{fake: "junk after", want: `fd 3 has "junk"`},
		{fake: "fail at the end", want: "the function exited: exit status 7"},
		{fake: "stubborn", want: "still running 500ms after the end of stdin", grace: 500 * time.Millisecond},
	} {
		t.Run(row.fake, func(t *testing.T) {
			t.Parallel()
			f := startAnyhow(t, row.fake, grace(row.grace))
			pid := f.PID()
			_, err := f.Invoke(t.Context(), json.RawMessage(`{}`))
			if err = errors.Join(err, f.Close()); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
			if alive(pid) {
				t.Error("the process is still there")
			}
		})
	}
}

func TestAProcessThatLeavesIsMissed(t *testing.T) {
	t.Parallel()
	f := start(t, "leave when idle")
	pid := f.PID()
	invoke(t, f, `{}`)
	harness.Eventually(t, "the process to leave", func() bool { return !alive(pid) })
	_, err := f.Invoke(t.Context(), json.RawMessage(`{}`))
	if !errors.Is(err, deploy.ErrExited) || !strings.Contains(err.Error(), "exit status 0") {
		t.Errorf("got %v, want %v: exit status 0", err, deploy.ErrExited)
	}
}
