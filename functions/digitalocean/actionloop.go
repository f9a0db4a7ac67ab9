package digitalocean

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"time"
)

// Main is a function in the platform's own form.
type Main func(context.Context, Event) Response

// sentinel ends the log of one invocation, on both streams. Without it the platform's log collector waits.
const sentinel = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"

// Serve runs a built function under the platform's proxy (the ActionLoop protocol): one line of JSON in on standard
// input, one out on descriptor 3, until the input ends. It is the function's func main, and ends the process with an
// error only when the proxy is not there to talk to.
func Serve(main Main) {
	out := os.NewFile(3, "descriptor 3")
	loop := actionLoop{main: main, in: os.Stdin, out: out, logs: []io.Writer{os.Stdout, os.Stderr}}
	if err := loop.run(); err != nil {
		fmt.Fprintln(os.Stderr, "this program is a DigitalOcean Function, run by the platform; for a server use: fallback serve")
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type actionLoop struct {
	main Main
	in   io.Reader
	out  io.Writer
	logs []io.Writer
}

// invocation is a line of input. Strings beside value tell about the activation.
type invocation struct {
	Value    json.RawMessage `json:"value"`
	Deadline string          `json:"deadline"` // milliseconds since 1970

	ActivationID  string `json:"activation_id"`
	ActionName    string `json:"action_name"`
	ActionVersion string `json:"action_version"`
	Namespace     string `json:"namespace"`
	RequestID     string `json:"transaction_id"`
	APIHost       string `json:"api_host"`
	APIKey        string `json:"api_key"`
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
			return err // strings and a number: cannot happen
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
func (l *actionLoop) answer(line []byte) (response Response) {
	defer func() {
		if v := recover(); v != nil {
			slog.Error("panic", "error", fmt.Sprint(v), "stack", string(debug.Stack()))
			response = Problem(http.StatusInternalServerError, "internal", "Something is wrong here; the request was not accepted.")
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

// context carries what the platform's own launcher would put there, under the same plain string keys.
func (in invocation) context() (context.Context, context.CancelFunc) {
	ctx := context.Background()
	for key, value := range map[string]string{
		"activation_id": in.ActivationID, "function_name": in.ActionName, "function_version": in.ActionVersion,
		"namespace": in.Namespace, "request_id": in.RequestID, "api_host": in.APIHost, "api_key": in.APIKey,
	} {
		ctx = context.WithValue(ctx, key, value) //nolint:staticcheck // the platform's contract has string keys
	}
	if ms, err := strconv.ParseInt(in.Deadline, 10, 64); err == nil {
		return context.WithDeadline(ctx, time.UnixMilli(ms))
	}
	return ctx, func() {}
}
