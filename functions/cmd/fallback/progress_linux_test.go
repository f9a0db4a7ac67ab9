package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"
)

// onTerminal is set where this test runs once more, with a terminal: how many it is to do, of 100,000.
const onTerminal = "FALLBACK_TEST_PROGRESS"

// TestProgress holds that a terminal gets a bar which ends where the work did, on a line of its own, and that a pipe
// and a buffer get nothing.
func TestProgress(t *testing.T) {
	t.Parallel()
	if until := os.Getenv(onTerminal); until != "" {
		var n int
		if _, err := fmt.Sscan(until, &n); err != nil {
			t.Fatal(err)
		}
		draw(os.Stderr, n)
		fmt.Println("the end")
		return
	}
	for _, row := range []struct {
		name        string
		until       string
		says, never string
	}{
		{"to the total", "100000", "(100000/100000", "110000"},
		{"broken off", "70000", "(70000/100000", "(80000"},
		{"nothing done", "0", "", "redriving"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			// script is the shortest way to a real terminal: it is on every Debian.
			cmd := exec.CommandContext(t.Context(), "script", "-qec", os.Args[0]+" -test.run='^TestProgress$'",
				"/dev/null")
			cmd.Env = append(os.Environ(), onTerminal+"="+row.until)
			raw, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %q", err, raw)
			}
			bar, _, found := strings.Cut(string(raw), "the end")
			if !found || !strings.Contains(bar, row.says) || strings.Contains(bar, row.never) {
				t.Errorf("got %q", raw)
			}
			if bar != "" && !strings.HasSuffix(bar, "\n") {
				t.Errorf("what comes next is on the bar's line: %q", raw)
			}
			for _, line := range strings.Split(bar, "\r") {
				// of 80: minutes take eight more than no time, [15m0s:20m0s]
				if n := utf8.RuneCountInString(line); n > 72 {
					t.Errorf("%d columns: %q", n, line)
				}
			}
		})
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	draw(write, 100_000)
	write.Close()
	piped, err := io.ReadAll(read)
	var buffer bytes.Buffer
	draw(&buffer, 100_000)
	if err != nil || len(piped) > 0 || buffer.Len() > 0 {
		t.Errorf("without a terminal: got %q, %v, and %q", piped, err, buffer.String())
	}
}

// draw does n things of 100,000, and tells of every 10,000.
func draw(out io.Writer, n int) {
	show, end := progress(out, "redriving")
	for done := 10_000; done <= n; done += 10_000 {
		show(done, 100_000)
	}
	end()
}
