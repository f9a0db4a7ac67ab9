// Package awslambda runs an http.Handler, and the scheduled drain, as an AWS Lambda function. An event of a Function
// URL or of an HTTP API of API Gateway (both send payload format 2.0) becomes an *http.Request, and what the handler
// writes becomes the platform's response; an event of an EventBridge schedule starts a run of the drain.
//
// Nothing here fails towards the platform: a Go error, or a panic that ends the process, would be a 502 without a body
// of ours, and an event of a schedule would come again. All of them become ordinary answers, 500 or 503.
package awslambda

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"runtime/debug"
	"slices"

	"github.com/aws/aws-lambda-go/lambda"

	"fallback/functions/platform"
	"fallback/functions/problem"
)

// Function is what the platform calls. It is safe for concurrent use.
type Function struct {
	// Door answers the events of HTTP.
	Door http.Handler
	// Drain makes one run, for an event of a schedule; it is to end before ctx does. What it returns is the answer, as
	// JSON.
	Drain func(ctx context.Context) any
	// Log gets what an operator should know.
	Log *slog.Logger
}

// Serve runs the function under the platform, and does not return. end is called before the platform ends the process,
// and has half a second. Without the platform, it says so and ends the process with an error.
func Serve(f *Function, end func()) {
	if os.Getenv("AWS_LAMBDA_RUNTIME_API") == "" {
		fmt.Fprintln(os.Stderr, "this program is an AWS Lambda function, run by the platform; for a server use: "+
			"fallback serve")
		os.Exit(1)
	}
	lambda.StartWithOptions(f, lambda.WithEnableSIGTERM(func() {
		end()
		os.Exit(0)
	}))
}

// Invoke answers one event; ctx ends when the platform ends the invocation. The error is always nil.
func (f *Function) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	return json.Marshal(f.answer(ctx, payload)) // strings and numbers: cannot fail
}

func (f *Function) answer(ctx context.Context, payload []byte) (answer any) {
	defer func() {
		if v := recover(); v != nil {
			f.Log.Error("panic", "error", fmt.Sprint(v), "stack", string(debug.Stack()))
			answer = response(platform.Problem(problem.Internal))
		}
	}()
	var e event
	if err := json.Unmarshal(payload, &e); err != nil {
		return f.unreadable(err)
	}
	switch {
	case e.Context.HTTP != nil:
		r, err := e.request(ctx)
		if err != nil {
			return f.unreadable(err)
		}
		return response(platform.Serve(f.Door, r))
	case e.DetailType == scheduled:
		return f.Drain(ctx)
	default:
		return f.unknown(payload)
	}
}

func (f *Function) unreadable(err error) any {
	f.Log.Error("an event could not be read", "error", err)
	return response(platform.Problem(platform.BadEvent))
}

// unknown is the answer to an event of another kind. The log names what it has and shows no value: it may be a request.
func (f *Function) unknown(payload []byte) any {
	const most, longest = 20, 64
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(payload, &fields) // null has none
	names := slices.Sorted(maps.Keys(fields))
	for i, name := range names {
		names[i] = name[:min(len(name), longest)]
	}
	f.Log.Error("an event of an unknown kind", "has", names[:min(len(names), most)],
		"hint", "an HTTP API must send payload format 2.0; REST APIs, load balancers and queues are not supported")
	return response(platform.Problem(unknownEvent))
}

var unknownEvent = problem.New(http.StatusInternalServerError, "unknown-event",
	"Not accepted: this function takes events of Function URLs and HTTP APIs (payload format 2.0), and of EventBridge "+
		"schedules.")
