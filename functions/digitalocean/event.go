// Package digitalocean runs an http.Handler as a DigitalOcean Function: an event of the platform becomes an
// *http.Request, what the handler writes becomes the platform's response, and [Serve] speaks the protocol between the
// platform's proxy and a built function.
//
// Nothing here fails towards the platform: what a Go error, a panic or an event of the wrong shape would bring about is
// an answer of 400, which senders do not try again. All of them become ordinary answers, 500 or 503.
package digitalocean

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strings"
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
	// Path is what follows the function's name, "" when nothing does.
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
		return Problem(http.StatusInternalServerError, "bad-event", "The platform's event could not be read; the request was not accepted.")
	}
	w := &recorder{header: http.Header{}}
	handler.ServeHTTP(w, r)
	return w.response()
}

// Problem is an RFC 9457 answer for what goes wrong outside a handler.
func Problem(status int, name, detail string) Response {
	body, _ := json.Marshal(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{"urn:fallback:problem:" + name, http.StatusText(status), status, detail})
	headers := map[string]string{"Content-Type": "application/problem+json"}
	if status == http.StatusServiceUnavailable {
		headers["Retry-After"] = "5"
	}
	return Response{StatusCode: status, Headers: headers, Body: string(body)}
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
	body := []byte(in.Body)
	if in.IsBase64Encoded {
		var err error
		if body, err = base64.StdEncoding.DecodeString(in.Body); err != nil {
			return nil, fmt.Errorf("body: %w", err)
		}
	}
	r := &http.Request{
		Method:     strings.ToUpper(in.Method),
		RequestURI: in.target(),
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        make(http.Header, len(in.Headers)),
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
		TLS:           &tls.ConnectionState{HandshakeComplete: true}, // the platform takes nothing but HTTPS
	}
	for name, value := range in.Headers {
		r.Header[textproto.CanonicalMIMEHeaderKey(name)] = []string{value}
	}
	r.Host = r.Header.Get("Host")
	r.Header.Del("Host")
	r.RemoteAddr = remote(r.Header.Get("X-Forwarded-For"))
	return r.WithContext(ctx), nil
}

// remote is the last address of X-Forwarded-For, the one that the platform has put there. Those before it are what the
// client has sent.
func remote(forwarded string) string {
	return strings.TrimSpace(forwarded[strings.LastIndexByte(forwarded, ',')+1:])
}

// target is path and query in origin form. The platform hands the path on as the client wrote it; what no request line
// may hold is escaped, should it have been decoded on the way.
func (h *HTTP) target() string {
	target := escape(h.Path)
	if !strings.HasPrefix(target, "/") {
		target = "/" + target
	}
	if h.QueryString != "" {
		target += "?" + escape(h.QueryString)
	}
	return target
}

func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// recorder is the http.ResponseWriter of one answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *recorder) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// response is the answer as the platform takes it. Bodies are JSON objects here, which the platform cannot take for
// base64 as it does with other strings under a JSON type.
func (w *recorder) response() Response {
	w.WriteHeader(http.StatusOK) // if the handler wrote nothing
	headers := make(map[string]string, len(w.header))
	for name, values := range w.header {
		headers[name] = strings.Join(values, ", ")
	}
	return Response{StatusCode: w.status, Headers: headers, Body: w.body.String()}
}
