// Package platform is what the functions of all platforms have in common: what an event says of a request becomes an
// *http.Request, and what a handler writes becomes an answer. How a platform writes the two down is its own package's.
package platform

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strings"

	"fallback/functions/problem"
)

// Request is what an event says of a request.
type Request struct {
	Method      string            // in upper or lower case
	Path, Query string            // as the client wrote them, as far as is known
	IsDecoded   bool              // the path may have been decoded
	Headers     map[string]string // names in any case, one value each
	Body        string            // base64 when IsBase64 says so
	IsBase64    bool
}

// HTTP is the request as a server would have received it, but for RemoteAddr. It came over TLS: the platforms take
// nothing but HTTPS. The error says that the body is not base64.
func (in Request) HTTP(ctx context.Context) (*http.Request, error) {
	body := []byte(in.Body)
	if in.IsBase64 {
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
		TLS:           &tls.ConnectionState{HandshakeComplete: true},
	}
	for name, value := range in.Headers {
		r.Header[textproto.CanonicalMIMEHeaderKey(name)] = []string{value}
	}
	r.Host = r.Header.Get("Host")
	r.Header.Del("Host")
	return r.WithContext(ctx), nil
}

// target is path and query in origin form.
func (in Request) target() string {
	target := escape(in.Path, isNotInRequestLine)
	if in.IsDecoded {
		target = escape(in.Path, isNotInPath)
	}
	if !strings.HasPrefix(target, "/") {
		target = "/" + target
	}
	if in.Query != "" {
		target += "?" + escape(in.Query, isNotInRequestLine)
	}
	return target
}

// escape percent-encodes each byte of s at which necessary says so of the rest.
func escape(s string, necessary func(rest string) bool) string {
	var b strings.Builder
	for i := range len(s) {
		if necessary(s[i:]) {
			fmt.Fprintf(&b, "%%%02X", s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// isNotInRequestLine is for what no request line may hold, should it have been decoded on the way.
func isNotInRequestLine(rest string) bool { return rest[0] <= ' ' || rest[0] >= 0x7f }

// isNotInPath is for a path that was decoded: also for what would end it, and for a percent sign that escapes nothing.
func isNotInPath(rest string) bool {
	c := rest[0]
	return isNotInRequestLine(rest) || c == '?' || c == '#' || c == '%' && !escapes(rest)
}

// escapes says whether s begins with a percent sign and two hexadecimal digits.
func escapes(s string) bool { return len(s) >= 3 && isHex(s[1]) && isHex(s[2]) }

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// Answer is what a handler wrote.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Serve lets handler answer the request.
func Serve(handler http.Handler, r *http.Request) Answer {
	w := &recorder{header: http.Header{}}
	handler.ServeHTTP(w, r)
	w.WriteHeader(http.StatusOK) // if the handler wrote nothing
	return Answer{w.status, w.header, w.body.Bytes()}
}

// Problem answers for what goes wrong outside a handler.
func Problem(p problem.Problem) Answer { return Answer{p.Status, p.Header(), p.Body()} }

// BadEvent is the answer to an event of another shape than the platform's, for which no sender is to blame.
var BadEvent = problem.New(http.StatusInternalServerError, "bad-event",
	"The platform's event could not be read; the request was not accepted.")

// Headers has one value for each name: repeated ones are joined.
func (a Answer) Headers() map[string]string {
	headers := make(map[string]string, len(a.Header))
	for name, values := range a.Header {
		headers[name] = strings.Join(values, ", ")
	}
	return headers
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
