package deploy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fallback/test/deploy"
	"fallback/test/harness"
)

// start starts a fake function; when the test ends it must close without a fault.
func start(t *testing.T, fake string, adjust ...func(*deploy.Config)) *deploy.Function {
	t.Helper()
	f := startAnyhow(t, fake, adjust...)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return f
}

// startAnyhow starts a fake function that need not end well.
func startAnyhow(t *testing.T, fake string, adjust ...func(*deploy.Config)) *deploy.Function {
	t.Helper()
	f, err := deploy.Start(t.Context(), config(t, fake, adjust...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func config(t *testing.T, fake string, adjust ...func(*deploy.Config)) deploy.Config {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := deploy.Config{Exec: self, Env: map[string]string{
		"FAKE_FUNCTION": fake,
		"GORACE":        "atexit_sleep_ms=0", // under the race detector each exit takes a second otherwise
	}}
	for _, adjust := range adjust {
		adjust(&c)
	}
	return c
}

func timeout(d time.Duration) func(*deploy.Config) {
	return func(c *deploy.Config) { c.Timeout = d }
}

func grace(d time.Duration) func(*deploy.Config) {
	return func(c *deploy.Config) { c.Grace = d }
}

func invoke(t *testing.T, f *deploy.Function, event string) string {
	t.Helper()
	result, err := f.Invoke(t.Context(), json.RawMessage(event))
	if err != nil {
		t.Fatalf("invoke: %v\n%s", err, f.Logs())
	}
	return string(result)
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestOneProcessServesManyInvocations(t *testing.T) {
	t.Parallel()
	f := start(t, "count")
	pid := f.PID()
	for i := 1; i <= 3; i++ {
		if got, want := invoke(t, f, `{}`), fmt.Sprintf(`{"n":%d}`, i); got != want {
			t.Errorf("invocation %d: got %s, want %s", i, got, want)
		}
	}
	if f.PID() != pid || f.Starts() != 1 {
		t.Errorf("got process %d after %d starts, want still %d after 1", f.PID(), f.Starts(), pid)
	}
	if f.Ready() <= 0 {
		t.Errorf("ready after %v", f.Ready())
	}
}

func TestTheEnvironmentIsOnlyWhatThePlatformGives(t *testing.T) {
	t.Setenv("DEPLOY_TEST_LEAK", "this process's own") // hence not parallel
	f := start(t, "env", func(c *deploy.Config) { c.Env["LOG_LEVEL"] = "debug" })
	var result struct{ Env []string }
	if err := json.Unmarshal([]byte(invoke(t, f, `{}`)), &result); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, v := range result.Env {
		name, value, _ := strings.Cut(v, "=")
		names = append(names, name)
		if name == "LOG_LEVEL" && value != "debug" {
			t.Errorf("LOG_LEVEL is %q", value)
		}
	}
	slices.Sort(names)
	want := []string{"FAKE_FUNCTION", "GORACE", "HOME", "LOG_LEVEL", "PATH", "__OW_API_HOST", "__OW_PROXY_VERSION"}
	if !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
}

func TestRunCarriesTheActivation(t *testing.T) {
	t.Parallel()
	f := start(t, "run", timeout(7*time.Second))
	before := time.Now()
	var got map[string]any
	if err := json.Unmarshal([]byte(invoke(t, f, "{\"a\":\n\"<&>\\n\"}")), &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"activation_id", "transaction_id", "deadline", "namespace", "action_name",
		"action_version", "api_host", "api_key"} {
		if _, ok := got[key].(string); !ok {
			t.Errorf("%s is %v, want a string", key, got[key])
		}
	}
	if value := fmt.Sprint(got["value"]); value != "map[a:<&>\n]" {
		t.Errorf("value is %q", value)
	}
	if name := got["action_name"].(string); !strings.HasPrefix(name, "/fn-") ||
		!strings.HasSuffix(name, "/fallback/enqueue") {
		t.Errorf("action_name is %q", name)
	}
	ms, err := strconv.ParseInt(got["deadline"].(string), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	checkDeadline(t, ms, before)
}

// checkDeadline holds that a deadline in Unix milliseconds was set seven seconds off, after before.
func checkDeadline(t *testing.T, ms int64, before time.Time) {
	t.Helper()
	const limit = 7 * time.Second
	set := time.UnixMilli(ms).Add(-limit)
	if set.Before(before.Truncate(time.Millisecond)) || set.After(time.Now()) {
		t.Errorf("a deadline of %s was set at %s, want it between %s and now", limit, set, before)
	}
}

func TestABigEventComesThrough(t *testing.T) {
	t.Parallel()
	f := start(t, "run")
	event := `{"a":"` + strings.Repeat("x", 900<<10) + `"}`
	if got := invoke(t, f, event); !strings.Contains(got, event) {
		t.Errorf("got %d bytes without the event of %d", len(got), len(event))
	}
}

func TestLogsAreKeptWithoutSentinels(t *testing.T) {
	t.Parallel()
	var copied strings.Builder
	f := startAnyhow(t, "log", func(c *deploy.Config) { c.Logs = &copied })
	invoke(t, f, `{}`)
	invoke(t, f, `{}`)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{"Logs": f.Logs(), "the copy": copied.String()} {
		if strings.Count(got, "on stdout\n") != 2 || strings.Count(got, "on stderr\n") != 2 ||
			strings.Contains(got, sentinel) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestAFreshProcessFollowsADeadOne(t *testing.T) {
	t.Parallel()
	f := start(t, "hang", timeout(300*time.Millisecond))
	first := f.PID()
	for range 2 {
		if _, err := f.Invoke(t.Context(), json.RawMessage(`{}`)); !errors.Is(err, deploy.ErrTimeout) {
			t.Errorf("got %v, want %v", err, deploy.ErrTimeout)
		}
	}
	if f.Starts() != 2 || alive(first) {
		t.Errorf("%d starts, want 2; first alive: %v", f.Starts(), alive(first))
	}
}

func TestInvokeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	f := start(t, "hang")
	pid := f.PID()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := f.Invoke(ctx, json.RawMessage(`{}`)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
	if alive(pid) {
		t.Error("the process is still there, in the middle of an invocation")
	}
}

func TestAPausedProcessIsFrozenAndThaws(t *testing.T) {
	t.Parallel()
	f := start(t, "count")
	invoke(t, f, `{}`)
	if err := f.Pause(); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the process to be frozen", func() bool { return state(t, f.PID()) == "T" })
	if err := f.Resume(); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the process to thaw", func() bool { return state(t, f.PID()) != "T" })
	f.Pause()
	if got := invoke(t, f, `{}`); got != `{"n":2}` {
		t.Errorf("after a pause: got %s, want the same process's second answer", got)
	}
}

// state is the process's state in /proc: T is stopped.
func state(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return after[:1]
}

func TestAPausedProcessIsKilledWithoutBlame(t *testing.T) {
	t.Parallel()
	f := start(t, "count")
	pid := f.PID()
	f.Pause()
	if err := f.Close(); err != nil || alive(pid) {
		t.Errorf("got %v; alive: %v", err, alive(pid))
	}
}

func TestAClosedFunctionRefuses(t *testing.T) {
	t.Parallel()
	f := start(t, "echo")
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Invoke(t.Context(), json.RawMessage(`{}`)); !errors.Is(err, deploy.ErrClosed) {
		t.Errorf("got %v, want %v", err, deploy.ErrClosed)
	}
}

// Not parallel: it counts what this process holds.
func TestNothingIsLeft(t *testing.T) {
	before := held(t)
	for _, fake := range []string{"echo", "hang", "exit", "two ends", "stubborn", "stillborn"} {
		f, err := deploy.Start(t.Context(), config(t, fake, grace(200*time.Millisecond), timeout(100*time.Millisecond)))
		if err != nil {
			continue
		}
		f.Invoke(t.Context(), json.RawMessage(`{}`))
		f.Close()
	}
	var after holdings
	defer func() {
		if t.Failed() {
			t.Errorf("before: %+v, after: %+v", before, after)
		}
	}()
	harness.Eventually(t, "nothing to be left", func() bool {
		after = held(t)
		return after.files <= before.files && after.goroutines <= before.goroutines && after.children == ""
	})
}

type holdings struct {
	files, goroutines int
	children          string
}

func held(t *testing.T) holdings {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	children := ""
	threads, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		pids, _ := os.ReadFile(thread) // the thread may be gone
		children += string(pids)
	}
	return holdings{len(files), runtime.NumGoroutine(), children}
}
