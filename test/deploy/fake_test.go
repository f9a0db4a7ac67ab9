package deploy_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// The functions of these tests are this test binary, started again with FAKE_FUNCTION in its environment.

func TestMain(m *testing.M) {
	if name := os.Getenv("FAKE_FUNCTION"); name != "" {
		os.Exit(fakes[name]())
	}
	os.Exit(m.Run())
}

// fakes are well-behaved functions and ones that break one rule each.
var fakes = map[string]func() int{
	"echo":  func() int { return serve(echo) },
	"say":   func() int { return serve(say) },
	"run":   func() int { return serve(func(run runLine) string { return string(run.line) }) },
	"env":   func() int { return serve(func(runLine) string { return encode(map[string]any{"env": os.Environ()}) }) },
	"count": func() int { return serve(counter()) },
	"log":   func() int { return serve(log) },
	"throw": func() int { return serve(func(runLine) string { return `{"error":"boom"}` }) },
	"long": func() int {
		return serve(func(runLine) string { return `{"body":"` + strings.Repeat("x", 1<<20) + `"}` })
	},
	"null":      func() int { return serve(func(runLine) string { return `null` }) },
	"array":     func() int { return serve(func(runLine) string { return `[]` }) },
	"text":      func() int { return serve(func(runLine) string { return `oops` }) },
	"exit":      func() int { return serve(func(runLine) string { os.Exit(3); return "" }) },
	"panic":     func() int { return serve(func(runLine) string { panic("boom") }) },
	"hang":      func() int { return serve(func(runLine) string { linger(); return "" }) },
	"slow":      func() int { return serve(slow) },
	"deaf":      func() int { ack(`{"ok":true}`); linger(); return 0 },
	"mute":      func() int { linger(); return 0 },
	"nack":      func() int { ack(`{"ok":false}`); return serveAfterAck(echo, end) },
	"babble":    func() int { ack(`hello`); return serveAfterAck(echo, end) },
	"stillborn": func() int { fmt.Fprintln(os.Stderr, "no broker"); return 1 },

	"no end on stdout":    func() int { return serveWith(echo, func() { fmt.Fprintln(os.Stderr, sentinel) }) },
	"no end on stderr":    func() int { return serveWith(echo, func() { fmt.Println(sentinel) }) },
	"no line for the end": func() int { return serveWith(echo, func() { fmt.Print("log"); end() }) },
	"two ends":            func() int { return serveWith(echo, func() { end(); end() }) },
	"junk before":         func() int { return serve(func(run runLine) string { return "junk\n" + echo(run) }) },
	"answer twice": func() int {
		return serve(func(run runLine) string {
			return echo(run) + "\n" +
				echo(run)
		})
	},
	"junk after":      func() int { return serveWith(echo, func() { end(); ack("junk") }) },
	"stubborn":        func() int { serve(echo); linger(); return 0 },
	"fail at the end": func() int { serve(echo); return 7 },
	"leave when idle": func() int { return serveWith(echo, func() { end(); os.Exit(0) }) },
}

const sentinel = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"

// runLine is a line of stdin: all of it, and what of it the fakes look at.
type runLine struct {
	line  json.RawMessage
	Value struct {
		HTTP struct {
			Body string `json:"body"`
		} `json:"http"`
	} `json:"value"`
}

func serve(answer func(runLine) string) int { return serveWith(answer, end) }

func serveWith(answer func(runLine) string, end func()) int {
	ack(`{"ok":true}`)
	return serveAfterAck(answer, end)
}

func serveAfterAck(answer func(runLine) string, end func()) int {
	stdin := bufio.NewReader(os.Stdin)
	for {
		line, err := stdin.ReadBytes('\n')
		if err != nil {
			return 0
		}
		run := runLine{line: line}
		if err := json.Unmarshal(line, &run); err != nil {
			panic(err)
		}
		ack(strings.TrimSuffix(answer(run), "\n"))
		end()
	}
}

var fd3 = os.NewFile(3, "fd3")

func ack(line string) { fmt.Fprintln(fd3, line) }

func end() {
	fmt.Println(sentinel)
	fmt.Fprintln(os.Stderr, sentinel)
}

// linger does nothing for longer than any test waits, but not for ever: should a test fail to kill, nothing stays.
func linger() { time.Sleep(time.Minute) }

// echo answers with the event as its body.
func echo(run runLine) string {
	var event struct {
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(run.line, &event); err != nil {
		panic(err)
	}
	return encode(map[string]any{"headers": map[string]string{"Content-Type": "application/json"}, "body": event.Value})
}

// say answers with the request's body, which is the result to give.
func say(run runLine) string { return run.Value.HTTP.Body }

func slow(run runLine) string {
	time.Sleep(300 * time.Millisecond)
	return echo(run)
}

func log(run runLine) string {
	fmt.Println("on stdout")
	fmt.Fprintln(os.Stderr, "on stderr")
	return echo(run)
}

func counter() func(runLine) string {
	n := 0
	return func(runLine) string {
		n++
		return encode(map[string]int{"n": n})
	}
}

func encode(v any) string {
	out, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(out)
}
