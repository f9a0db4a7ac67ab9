//go:build e2e

// Package ci tests the scripts of .ci: each in a small project of its own.
package ci

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"fallback/test/harness"
)

// project is a folder with scripts of .ci, and with these files.
func project(t *testing.T, files map[string]string, scripts ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, script := range scripts {
		raw, err := os.ReadFile(filepath.Join(harness.Root(), ".ci", script))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, ".ci", script), string(raw))
	}
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	return dir
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// run is what a script says, and its exit code. PATH begins with the project's folder, and of the environment nothing
// is handed on that a make above may have set.
func run(t *testing.T, dir string, command ...string) (said string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "MAKEFLAGS=", "MAKELEVEL=", "GOFLAGS=",
		"GOWORK=off")
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return string(out), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(out), 0
}

const steps = "verify lint test-long:\n\t@echo $@ is done\n"

// TestRun holds that CI runs every step, and ends with how long each took.
func TestRun(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{"Makefile": steps + "test:\n\t@sleep 1.1; echo test is done\n"}, "run")
	said, code := run(t, dir, ".ci/run")
	if code != 0 {
		t.Errorf("ended with %d", code)
	}
	want := regexp.MustCompile(`(?s)verify is done.*lint is done.*test is done.*test-long is done.*` +
		`ci:\n +\d+ s  make verify\n +\d+ s  make lint\n +[1-9]\d* s  make test\n +\d+ s  make test-long\n +[1-9]\d* s  all, of 3600\n$`)
	if !want.MatchString(said) {
		t.Errorf("got:\n%s", said)
	}
}

// TestRunFails holds that a step which fails is the last, and is named.
func TestRunFails(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{"Makefile": steps + "test:\n\t@echo a test fails; exit 1\n"}, "run")
	said, code := run(t, dir, ".ci/run")
	if code == 0 || !regexp.MustCompile(`a test fails(?s).*\d s  make test: failed\n`).MatchString(said) ||
		strings.Contains(said, "test-long") {
		t.Errorf("ended with %d:\n%s", code, said)
	}
}

// TestRunEnds holds that a step which takes longer than it may is ended, with all that it has started.
func TestRunEnds(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, all, test, want string }{
		{"the tests' time", "3600", "1", `make test: ended, it had 1 s`},
		{"everybody's time", "1", "1200", `make test: ended, it had 1 s`},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := project(t, map[string]string{"Makefile": steps +
				"test:\n\t@sh -c 'sleep 60; echo never' & echo $$! >pid; wait\n"}, "run")
			watch := harness.StartWatch()
			said, code := run(t, dir, ".ci/run", row.all, row.test)
			watch.Hold(t, 10*time.Second, "the end")
			if code == 0 || !strings.Contains(said, row.want) || strings.Contains(said, "test-long") {
				t.Errorf("ended with %d:\n%s", code, said)
			}
			pid, err := os.ReadFile(filepath.Join(dir, "pid"))
			if err != nil {
				t.Fatal(err)
			}
			harness.Eventually(t, "the step's own child to end", func() bool {
				_, code := run(t, dir, "sh", "-c", "kill -0 "+strings.TrimSpace(string(pid)))
				return code != 0
			})
		})
	}
}

// target is a file with a fuzz target that fails for what condition says of an input.
func target(name, condition string) string {
	return `package p

import "testing"

func Fuzz` + name + `(f *testing.F) {
	f.Add("a")
	f.Fuzz(func(t *testing.T, in string) {
		if ` + condition + ` {
			t.Error("it is one")
		}
	})
}
`
}

// TestFuzz holds that all targets of all packages run, those behind one that fails too, and that the failing input is
// kept.
func TestFuzz(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{
		"go.mod":         "module p\n\ngo 1.25\n",
		"a/a_test.go":    target("One", "false"),
		"b/b_test.go":    target("Bad", `in != "a"`),
		"c/c.go":         "package p\n",
		"c/d/d_test.go":  target("Two", "false"),
		"c/d/d2_test.go": target("Three", "len(in) < 0"),
	}, "fuzz.sh")
	said, code := run(t, dir, ".ci/fuzz.sh", "100x")
	if code != 1 || !strings.Contains(said, "it is one") || !strings.HasSuffix(said, "\nfuzz: failed: FuzzBad\n") {
		t.Errorf("ended with %d:\n%s", code, said)
	}
	for _, name := range []string{"FuzzOne", "FuzzTwo", "FuzzThree"} {
		if !regexp.MustCompile(`(?m)^` + name + ` +[1-9]\d* inputs  p/`).MatchString(said) {
			t.Errorf("%s has not run:\n%s", name, said)
		}
	}
	if kept, _ := filepath.Glob(dir + "/b/testdata/fuzz/FuzzBad/*"); len(kept) != 1 {
		t.Errorf("kept: %q", kept)
	}
}

// TestFuzzWithoutTargets holds that nothing to run is no success, nor is what does not compile.
func TestFuzzWithoutTargets(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"none": "package p\n",
		"does not compile": "package p\n\nfunc FuzzX() int {}\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := project(t, map[string]string{"go.mod": "module p\n\ngo 1.25\n", "p_test.go": text}, "fuzz.sh")
			if said, code := run(t, dir, ".ci/fuzz.sh", "1x"); code == 0 {
				t.Error(said)
			}
		})
	}
}

// TestFuzzOutOfTime holds that Go's own mistake at the end of the time is no failure, and that everything else is. It
// comes too rarely to be waited for, so that a `go` that says so stands in.
func TestFuzzOutOfTime(t *testing.T) {
	t.Parallel()
	const mistake = "--- FAIL: FuzzX (5.10s)\n    context deadline exceeded\nFAIL\nexit status 1\n"
	for _, row := range []struct {
		name, says string
		code       int
	}{
		{"the mistake", "fuzz: elapsed: 5s, execs: 7 (0/sec)\n" + mistake, 0},
		{"with an input", mistake + "    Failing input written to testdata/fuzz/FuzzX/0\n", 1},
		{"a test's own", "--- FAIL: FuzzX (5.10s)\n    x_test.go:7: context deadline exceeded\nFAIL\n", 1},
		{"a panic", mistake + "panic: boom\n", 1},
		{"another failure", "--- FAIL: FuzzX (5.10s)\n    hung\nFAIL\n", 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := project(t, map[string]string{
				"says": row.says,
				"go": "#!/bin/sh\nif [ \"$2\" = -list ]; then printf 'FuzzX\\nok  \\tp\\t0.1s\\n'; else cat says; " +
					"exit 1; fi\n",
			}, "fuzz.sh")
			if said, code := run(t, dir, ".ci/fuzz.sh", "5s"); code != row.code {
				t.Errorf("ended with %d:\n%s", code, said)
			}
		})
	}
}
