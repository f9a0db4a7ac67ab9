package digitalocean

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"fallback/functions/platform"
	"fallback/functions/problem"
)

// sentinel ends the log of one invocation, on both streams. Without it the platform's log collector waits.
const sentinel = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"

// Serve runs a built function under the platform's proxy (the ActionLoop protocol): one line of JSON in on standard
// input, one out on descriptor 3, until the input ends. It is the function's func main, and ends the process with an
// error only when the proxy is not there to talk to.
//
// main is a function in the platform's own form. What it answers, R, must become a JSON object: a [Response] if it is
// a web function, else whatever is to be its result.
func Serve[R any](main func(context.Context, Event) R) {
	out := os.NewFile(3, "descriptor 3")
	loop := actionLoop{main: untyped(main), in: os.Stdin, out: out, logs: []io.Writer{os.Stdout, os.Stderr}}
	if err := loop.run(); err != nil {
		fmt.Fprintln(os.Stderr, "this program is a DigitalOcean Function, run by the platform; for a server use: "+
			"fallback serve")
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// untyped is main without its result's type.
func untyped[R any](main func(context.Context, Event) R) func(context.Context, Event) any {
	return func(ctx context.Context, event Event) any { return main(ctx, event) }
}

type actionLoop struct {
	main func(context.Context, Event) any
	in   io.Reader
	out  io.Writer
	logs []io.Writer
}

// invocation is what is used of a line of input. The platform tells more beside it, of the activation and of the
// namespace, its key too.
type invocation struct {
	Value    json.RawMessage `json:"value"`
	Deadline string          `json:"deadline"` // milliseconds since 1970
}

func (l *actionLoop) run() error {
	if _, err := io.WriteString(l.out, `{"ok":true}`+"\n"); err != nil {
		return err
	}
	in := bufio.NewReaderSize(l.in, 64<<10)
	for {
		line, err := in.ReadBytes('\n') // of any length: an event may have a megabyte
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		answer, err := json.Marshal(l.answer(line))
		if err != nil {
			return err // what functions answer is strings and numbers: cannot happen
		}
		if _, err := l.out.Write(append(answer, '\n')); err != nil {
			return err
		}
		for _, w := range l.logs {
			fmt.Fprintln(w, sentinel)
		}
	}
}

// answer calls main. A panic becomes a 500 here, since the platform's own answer would be a 400.
func (l *actionLoop) answer(line []byte) (answered any) {
	defer func() {
		if v := recover(); v != nil {
			log := slog.New(slog.NewJSONHandler(l.logs[len(l.logs)-1], nil)) // as a function's own is by default
			log.Error("panic", "error", fmt.Sprint(v), "stack", string(debug.Stack()))
			answered = response(platform.Problem(problem.Internal))
		}
	}()
	var in invocation
	var event Event
	if err := json.Unmarshal(line, &in); err != nil {
		event.Fault = fmt.Errorf("invocation of an unknown shape: %w", err)
	} else if len(in.Value) > 0 {
		_ = event.UnmarshalJSON(in.Value) // never fails
	}
	ctx, cancel := in.context()
	defer cancel()
	return l.main(ctx, event)
}

// context ends when the platform ends the invocation.
func (in invocation) context() (context.Context, context.CancelFunc) {
	ctx := context.Background()
	if ms, err := strconv.ParseInt(in.Deadline, 10, 64); err == nil {
		return context.WithDeadline(ctx, time.UnixMilli(ms))
	}
	return ctx, func() {}
}
