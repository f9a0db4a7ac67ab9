// Package digitalocean runs an http.Handler as a DigitalOcean Function: an event of the platform becomes an
// *http.Request, what the handler writes becomes the platform's response, and [Serve] speaks the protocol between the
// platform's proxy and a built function.
//
// Nothing here fails towards the platform: what a Go error, a panic or an event of the wrong shape would bring about is
// an answer of 400, which senders do not try again. All of them become ordinary answers, 500 or 503.
package digitalocean

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"fallback/functions/platform"
	"fallback/functions/problem"
)

// Event is what the platform hands a web function with `web: raw`. An event without HTTP is a scheduled trigger's or a
// direct invocation.
type Event struct {
	HTTP *HTTP
	// Fault is what was wrong with the event's shape; a malformed event must reach the function to be answered.
	Fault error
}

// HTTP is the request in an event.
type HTTP struct {
	// Method may be in lower case.
	Method string `json:"method"`
	// Path is what follows the function's name, as the client wrote it, "" when nothing does.
	Path        string `json:"path"`
	QueryString string `json:"queryString"`
	// Headers have lower-case names and one value each: the platform has joined repeated ones.
	Headers map[string]string `json:"headers"`
	// Body is base64 when IsBase64Encoded says so: for binary media types, and for JSON.
	Body            string `json:"body"`
	IsBase64Encoded bool   `json:"isBase64Encoded"`
}

// UnmarshalJSON takes any event. It fails for none, since the platform would answer for it with a 400.
func (e *Event) UnmarshalJSON(data []byte) error {
	var raw struct {
		HTTP *HTTP `json:"http"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		*e = Event{Fault: fmt.Errorf("event of an unknown shape: %w", err)}
		return nil
	}
	*e = Event{HTTP: raw.HTTP}
	return nil
}

// Response is what a web function returns.
type Response struct {
	StatusCode int               `json:"statusCode"`
	Headers    map[string]string `json:"headers,omitempty"`
	Body       string            `json:"body,omitempty"`
}

// Handle lets handler answer the event. An event without HTTP is answered as GET /readyz: a trigger that keeps the
// function warm keeps its connection alive too, and whoever invokes it by hand sees whether it would work.
func Handle(ctx context.Context, handler http.Handler, event Event) Response {
	r, err := event.request(ctx)
	if err != nil {
		return response(platform.Problem(platform.BadEvent))
	}
	return response(platform.Serve(handler, r))
}

// Problem is an RFC 9457 answer for what goes wrong outside a handler.
func Problem(status int, name, detail string) Response {
	return response(platform.Problem(problem.New(status, name, detail)))
}

// response is the answer as the platform takes it. Bodies are JSON objects here, which the platform cannot take for
// base64 as it does with other strings under a JSON type.
func response(answer platform.Answer) Response {
	return Response{StatusCode: answer.Status, Headers: answer.Headers(), Body: string(answer.Body)}
}

// request is the event as a server would have received it.
func (e Event) request(ctx context.Context) (*http.Request, error) {
	if e.Fault != nil {
		return nil, e.Fault
	}
	in := e.HTTP
	if in == nil {
		in = &HTTP{Method: http.MethodGet, Path: "/readyz"}
	}
	r, err := platform.Request{
		Method: in.Method, Path: in.Path, Query: in.QueryString, Headers: in.Headers, Body: in.Body,
		IsBase64: in.IsBase64Encoded,
	}.HTTP(ctx)
	if err != nil {
		return nil, err
	}
	r.RemoteAddr = remote(r.Header.Get("X-Forwarded-For"))
	return r, nil
}

// remote is the last address of X-Forwarded-For, the one that the platform has put there. Those before it are what the
// client has sent.
func remote(forwarded string) string {
	return strings.TrimSpace(forwarded[strings.LastIndexByte(forwarded, ',')+1:])
}
