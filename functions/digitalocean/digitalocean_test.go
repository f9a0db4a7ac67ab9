package digitalocean

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// drive runs the loop over lines of input and returns the lines of output and one stream's log.
func drive[R any](t *testing.T, main func(context.Context, Event) R, lines ...string) (out []string, log string) {
	t.Helper()
	var answers, stdout bytes.Buffer
	loop := actionLoop{main: untyped(main), in: strings.NewReader(strings.Join(lines, "\n") + "\n"), out: &answers,
		logs: []io.Writer{&stdout}}
	if err := loop.run(); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(answers.String(), "\n"), "\n"), stdout.String()
}

func TestActionLoop(t *testing.T) {
	t.Parallel()
	echo := func(ctx context.Context, e Event) Response {
		if e.HTTP != nil && e.HTTP.Path == "/panic" {
			panic("boom")
		}
		deadline, _ := ctx.Deadline()
		switch {
		case e.Fault != nil:
			return Response{StatusCode: 200, Body: "fault"}
		case e.HTTP == nil:
			return Response{StatusCode: 200, Body: "no HTTP"}
		}
		return Response{StatusCode: 200, Body: deadline.UTC().Format(time.RFC3339) + " " + e.HTTP.Body}
	}
	out, log := drive(t, echo,
		`{"value":{"http":{"path":"/a","body":"one"}},"activation_id":"x","deadline":"1795327982000","api_key":"x"}`,
		`{"value":{"http":{"path":"/panic"}}}`,
		`not JSON`,
		`{"value":7}`,
		`{"value":{"http":{"body":"`+strings.Repeat("x", 1<<20)+`"}}}`,
		`{"activation_id":"x"}`,
	)
	want := []string{
		`{"ok":true}`,
		`{"statusCode":200,"body":"2026-11-22T06:13:02Z one"}`,
		`"statusCode":500`,
		`"body":"fault"`,
		`"body":"fault"`,
		`{"statusCode":200,"body":"0001-01-01T00:00:00Z xxx`,
		`"body":"no HTTP"`,
	}
	if len(out) != len(want) {
		t.Fatalf("got %d lines, want %d: %.300q", len(out), len(want), out)
	}
	for i := range want {
		if !strings.Contains(out[i], want[i]) {
			t.Errorf("line %d: got %.200s, want %s", i, out[i], want[i])
		}
		if strings.Contains(out[i], `"error"`) || strings.Contains(out[i], "boom") {
			t.Errorf("line %d would be a 400, or shows the panic: %.200s", i, out[i])
		}
	}
	if n := strings.Count(log, sentinel+"\n"); n != len(want)-1 {
		t.Errorf("%d sentinels for %d invocations", n, len(want)-1)
	}
}

// TestResult holds that a function without a web route has its result as it is, and that its panic is no failure
// either.
func TestResult(t *testing.T) {
	t.Parallel()
	out, _ := drive(t, func(_ context.Context, e Event) struct{ Delivered int } {
		if e.Fault != nil {
			panic("boom")
		}
		return struct{ Delivered int }{3}
	}, `{"value":{}}`, `{"value":7}`)
	if want := `{"Delivered":3}`; out[1] != want {
		t.Errorf("got %s, want %s", out[1], want)
	}
	if !strings.Contains(out[2], `"statusCode":500`) || strings.Contains(out[2], "boom") {
		t.Errorf("after a panic: got %s", out[2])
	}
}

// TestConnection holds what is known of the client's connection: the platform's word for it and not the client's.
func TestConnection(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, forwarded, remote string }{
		{"the platform's alone", "203.0.113.7", "203.0.113.7"},
		{"the client has sent one, too", "127.0.0.1, 203.0.113.7", "203.0.113.7"},
		{"without white space", "10.0.0.1,2001:db8::7", "2001:db8::7"},
		{"none", "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if r.RemoteAddr != row.remote || r.TLS == nil || r.Host != "api.example.com" || r.Proto != "HTTP/1.1" {
					t.Errorf("got %s from %q, TLS %v, host %q", r.Proto, r.RemoteAddr, r.TLS != nil, r.Host)
				}
			})
			Handle(context.Background(), h, Event{HTTP: &HTTP{
				Headers: map[string]string{"host": "api.example.com", "x-forwarded-for": row.forwarded,
					"x-forwarded-proto": "http"},
			}})
		})
	}
}

func TestHandleJoinsHeaders(t *testing.T) {
	t.Parallel()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("X-Tag", "a")
		w.Header().Add("X-Tag", "b")
		w.WriteHeader(http.StatusTeapot)
		w.WriteHeader(http.StatusOK) // too late
		_, _ = io.WriteString(w, r.Host+" "+r.RequestURI)
	})
	got := Handle(context.Background(), h, Event{HTTP: &HTTP{
		Method: "post", Path: "/a%2Fb", QueryString: "x=1",
		Headers: map[string]string{"host": "api.example.com"},
	}})
	if got.StatusCode != http.StatusTeapot || got.Headers["X-Tag"] != "a, b" ||
		got.Body != "api.example.com /a%2Fb?x=1" {
		t.Errorf("got %+v", got)
	}
}

// FuzzEvent holds that no event makes the function fail towards the platform.
func FuzzEvent(f *testing.F) {
	f.Add([]byte(`{"http":{"method":"POST","path":"/a","queryString":"b","headers":{"c":"d"},"body":"e","isBase64Encoded":false}}`))
	f.Add([]byte(`{"http":{"body":"%%%","isBase64Encoded":true}}`))
	f.Add([]byte(`{"http":[]}`))
	f.Add([]byte(`[`))
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.RequestURI, "/") || strings.ContainsAny(r.RequestURI, " \r\n") {
			panic("a request line could not hold " + r.RequestURI)
		}
		_, _ = io.Copy(w, r.Body)
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		var e Event
		if err := e.UnmarshalJSON(data); err != nil {
			t.Fatal(err)
		}
		got := Handle(context.Background(), h, e)
		if got.StatusCode < 200 {
			t.Errorf("status %d", got.StatusCode)
		}
		if _, err := json.Marshal(got); err != nil {
			t.Error(err)
		}
	})
}
