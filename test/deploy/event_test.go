package deploy_test

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"

	"fallback/test/deploy"
)

type webEvent struct {
	Greeting string
	HTTP     struct {
		Method, Path, QueryString, Body string
		IsBase64Encoded                 bool
		Headers                         map[string]string
	}
}

// eventOf sends a request to an echo and returns the event that it saw.
func eventOf(t *testing.T, r *http.Request) webEvent {
	t.Helper()
	resp, body := send(t, r)
	var event webEvent
	if err := json.Unmarshal([]byte(body), &event); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("got %s %.200s, want the event", resp.Status, body)
	}
	return event
}

func TestTheEventIsTheRequest(t *testing.T) {
	t.Parallel()
	url := front(t, start(t, "echo", func(c *deploy.Config) { c.Parameters = map[string]any{"greeting": "hi"} }))
	r := request(t, "PUT", url+"/orders/4%202?a=1&a=2&b=%20", "hello",
		"Content-Type", "text/plain", "X-Twice", "one", "X-Twice", "two", "X-Forwarded-For", "203.0.113.11",
		"Connection", "keep-alive")
	r.Host = "api.example.com"
	event := eventOf(t, r)
	got := event.HTTP
	if event.Greeting != "hi" || got.Method != "PUT" || got.Path != "/orders/4%202" ||
		got.QueryString != "a=1&a=2&b=%20" || got.Body != "hello" || got.IsBase64Encoded {
		t.Errorf("got %+v", event)
	}
	want := map[string]string{
		"content-type": "text/plain", "x-twice": "one, two", "host": "api.example.com",
		"user-agent":      "Go-http-client/1.1",
		"accept-encoding": "gzip", "x-forwarded-for": "203.0.113.11, 127.0.0.1", "x-forwarded-proto": "https",
	}
	if len(got.Headers["x-request-id"]) != 32 {
		t.Errorf("x-request-id is %q", got.Headers["x-request-id"])
	}
	delete(got.Headers, "x-request-id")
	if !maps.Equal(got.Headers, want) {
		t.Errorf("the headers are %v, want %v", got.Headers, want)
	}
	if got := eventOf(t, request(t, "GET", url, "")).HTTP; got.Path != "" || got.QueryString != "" || got.Body != "" ||
		got.IsBase64Encoded {
		t.Errorf("a bare GET: %+v", got)
	}
}

func TestTheBodyIsBase64WhenItsTypeSaysSo(t *testing.T) {
	t.Parallel()
	url := front(t, start(t, "echo"))
	for _, row := range []struct {
		name, contentType, body string
		encoded                 bool
		want                    string // the body, decoded; as sent if empty
	}{
		{name: "json", contentType: "application/json", body: `{"a":1}`, encoded: true},
		{name: "json with a charset", contentType: "Application/JSON; charset=utf-8", body: `{"a":1}`, encoded: true},
		{name: "problem+json", contentType: "application/problem+json", body: `{}`},
		{name: "another +json", contentType: "application/cloudevents+json", body: `{}`, encoded: true},
		{name: "another +json with a charset", contentType: "application/cloudevents+json; charset=utf-8", body: `{}`},
		{name: "form", contentType: "application/x-www-form-urlencoded", body: "a=1&b=%C3%A9"},
		{name: "text", contentType: "text/plain; charset=utf-8", body: "<é> & \"\n\x01"},
		{name: "xml", contentType: "application/xml", body: "<a/>"},
		{name: "binary", contentType: "application/octet-stream", body: "\x00\xff\n", encoded: true},
		{name: "image", contentType: "image/png; charset=utf-8", body: "\x89PNG", encoded: true},
		{name: "svg", contentType: "image/svg+xml", body: "<svg/>", encoded: true},
		{name: "multipart", contentType: "multipart/form-data; boundary=x", body: "--x--", encoded: true},
		{name: "a type nobody knows", contentType: "application/x-mine", body: "mine", encoded: true},
		{name: "a text type nobody knows", contentType: "text/x-mine", body: "mine", encoded: true},
		{name: "not a type", contentType: "json", body: "mine", encoded: true},
		{name: "no type", body: "mine", encoded: true},
		{name: "latin1 is damaged", contentType: "text/plain; charset=iso-8859-1", body: "caf\xe9\xe8!",
			want: "caf\uFFFD\uFFFD!"},
		{name: "no body", contentType: "application/json"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := request(t, "POST", url, row.body)
			if row.contentType != "" {
				r.Header.Set("Content-Type", row.contentType)
			}
			event := eventOf(t, r).HTTP
			got := event.Body
			if event.IsBase64Encoded {
				decoded, err := base64.StdEncoding.DecodeString(got)
				if err != nil {
					t.Fatal(err)
				}
				got = string(decoded)
			}
			if want := cmp.Or(row.want, row.body); got != want || event.IsBase64Encoded != row.encoded {
				t.Errorf("got %q, base64 %v; want %q, %v", got, event.IsBase64Encoded, want, row.encoded)
			}
		})
	}
}

func TestTheEventHasALimit(t *testing.T) {
	t.Parallel()
	f := start(t, "echo")
	url := front(t, f)
	for _, row := range []struct {
		name, contentType string
		size              int
		want              int
	}{
		{"900 KB of text fit", "text/plain", 900 << 10, 200},
		{"750 KB in base64 fit", "application/json", 750 << 10, 200},
		{"800 KB in base64 do not", "application/json", 800 << 10, 413},
		{"more than 1 MB does not", "text/plain", 1<<20 + 1, 413},
	} {
		t.Run(row.name, func(t *testing.T) {
			body := strings.Repeat("x", row.size)
			resp, got := send(t, request(t, "POST", url, body, "Content-Type", row.contentType))
			if resp.StatusCode != row.want {
				t.Errorf("got %s %.200s, want %d", resp.Status, got, row.want)
			}
			if row.want == 413 && !strings.Contains(got, `> 1048576 bytes."`) {
				t.Errorf("got %s", got)
			}
		})
	}
	if len(f.Faults()) > 0 {
		t.Error(f.Faults())
	}
}
