package awslambda

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"
)

// modelled is an event in the form in which the platform sends it; names and ids are made up. Events that AWS has
// published are in TestPublished.
func modelled(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// invoke runs the function once; its error must be nil, whatever comes.
func invoke(t testing.TB, f *Function, event []byte) []byte {
	t.Helper()
	if f.Log == nil {
		f.Log = slog.New(slog.DiscardHandler)
	}
	out, err := f.Invoke(t.Context(), event)
	if err != nil {
		t.Fatalf("an error of Lambda's: %v", err)
	}
	return out
}

// respond is invoke for events of HTTP.
func respond(t testing.TB, f *Function, event []byte) events.LambdaFunctionURLResponse {
	t.Helper()
	var response events.LambdaFunctionURLResponse
	if out := invoke(t, f, event); json.Unmarshal(out, &response) != nil {
		t.Fatalf("not a response: %s", out)
	}
	return response
}

// seen is what a handler gets.
type seen struct {
	Line, Host, Proto, Remote, Body string
	Header                          http.Header
}

func TestRequests(t *testing.T) {
	t.Parallel()
	const functionURL = "abcdefghijklmnopqrstuvwxyz012345.lambda-url.eu-central-1.on.aws"
	const httpAPI = "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com"
	for _, row := range []struct {
		name string
		want seen // of the headers, those that are of interest
	}{
		{"function-url-json", seen{Line: "POST /orders/a%2Fb?source=web&tag=1&tag=2", Host: functionURL,
			Body:   `{"order":42}`,
			Header: http.Header{"Content-Type": {"application/json"}, "Host": nil, "Cookie": nil}}},
		{"function-url-binary", seen{Line: "PUT /blobs", Host: functionURL, Body: "\x00\xff\x80\n"}},
		{"function-url-form", seen{Line: "POST /slack/commands", Host: functionURL, Body: "command=%2Fdeploy"}},
		{"function-url-empty", seen{Line: "POST /", Host: functionURL}},
		{"function-url-dollar", seen{Line: "POST /$default/orders", Host: functionURL}},
		{"function-url-iam", seen{Line: "POST /orders", Host: functionURL, Body: "signed"}},
		{"http-api-cookies", seen{Line: "PATCH /cart", Host: httpAPI, Proto: "HTTP/2.0", Body: "{}",
			Header: http.Header{"Cookie": {"session=s%3A1; theme=dark"}, "Accept": {"application/json,text/plain"},
				"X-Tag": {"a,b"}}}},
		{"http-api-stage", seen{Line: "POST /orders/42?x=%20y", Host: httpAPI, Body: "hello"}},
		{"http-api-stage-root", seen{Line: "DELETE /", Host: httpAPI}},
		{"http-api-custom-domain", seen{Line: "PUT /products/7", Host: "api.example.com", Body: "x"}},
		{"http-api-decoded", seen{Line: "POST /a%20b/caf%C3%A9%3F%23100%25/%41?q=100%&u=%C3%A9", Host: httpAPI,
			Body: "x"}},
		{"http-api-jwt", seen{Line: "POST /orders", Host: httpAPI, Body: "x",
			Header: http.Header{"Authorization": {"Bearer e30.e30.x"}}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if row.want.Proto == "" {
				row.want.Proto = "HTTP/1.1"
			}
			row.want.Remote = "203.0.113.7"
			var got seen
			f := &Function{Door: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil || int64(len(body)) != r.ContentLength || r.TLS == nil {
					t.Errorf("%d bytes of %d, %v; TLS %v", len(body), r.ContentLength, err, r.TLS)
				}
				got = seen{r.Method + " " + r.RequestURI, r.Host, r.Proto, r.RemoteAddr, string(body), nil}
				for name := range row.want.Header {
					if got.Header == nil {
						got.Header = http.Header{}
					}
					got.Header[name] = r.Header[name]
				}
			})}
			if response := respond(t, f, modelled(t, row.name)); response.StatusCode != http.StatusOK {
				t.Errorf("got %+v", response)
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestPublished holds that the events which AWS publishes with its library become what the library reads in them.
func TestPublished(t *testing.T) {
	t.Parallel()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/aws/aws-lambda-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(strings.TrimSpace(string(dir)), "events", "testdata")
	files, err := filepath.Glob(filepath.Join(at, "apigw-v2-request-*.json"))
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, filepath.Join(at, "lambda-urls-request.json"))
	if len(files) < 5 {
		t.Fatalf("got %q", files)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var event events.APIGatewayV2HTTPRequest // the same as LambdaFunctionURLRequest, in what is of interest
			if err := json.Unmarshal(raw, &event); err != nil {
				t.Fatal(err)
			}
			in := event.RequestContext
			line := in.HTTP.Method + " " + event.RawPath
			if in.Stage != unnamed && in.Stage != "" {
				line = in.HTTP.Method + " " + strings.TrimPrefix(event.RawPath, "/"+in.Stage)
			}
			if event.RawQueryString != "" {
				line += "?" + event.RawQueryString
			}
			want := seen{Line: line, Host: event.Headers["host"], Proto: in.HTTP.Protocol, Remote: in.HTTP.SourceIP,
				Body: event.Body, Header: http.Header{}}
			if want.Host == "" {
				want.Host = in.DomainName
			}
			for name, value := range event.Headers {
				if name = http.CanonicalHeaderKey(name); name != "Host" {
					want.Header[name] = []string{value}
				}
			}
			if len(event.Cookies) > 0 {
				want.Header["Cookie"] = []string{strings.Join(event.Cookies, "; ")}
			}
			var got seen
			f := &Function{Door: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				got = seen{r.Method + " " + r.RequestURI, r.Host, r.Proto, r.RemoteAddr, string(body), r.Header.Clone()}
			})}
			respond(t, f, raw)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestResponses(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		write func(http.ResponseWriter)
		want  events.LambdaFunctionURLResponse
	}{
		{"nothing", func(http.ResponseWriter) {}, events.LambdaFunctionURLResponse{StatusCode: 200}},
		{"text", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusTeapot)
			w.WriteHeader(http.StatusOK) // too late
			_, _ = io.WriteString(w, "<é>")
		}, events.LambdaFunctionURLResponse{StatusCode: 418, Headers: map[string]string{"Content-Type": "text/plain"},
			Body: "<é>"}},
		{"bytes", func(w http.ResponseWriter) { _, _ = w.Write([]byte{0, 255}) },
			events.LambdaFunctionURLResponse{StatusCode: 200, Body: "AP8=", IsBase64Encoded: true}},
		{"repeated headers and cookies", func(w http.ResponseWriter) {
			w.Header()["X-Tag"] = []string{"a", "b"}
			w.Header()["Set-Cookie"] = []string{"a=1; Path=/", "b=2"}
		}, events.LambdaFunctionURLResponse{StatusCode: 200, Headers: map[string]string{"X-Tag": "a, b"},
			Cookies: []string{"a=1; Path=/", "b=2"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			f := &Function{Door: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { row.write(w) })}
			got := respond(t, f, modelled(t, "function-url-json"))
			if len(got.Headers) == 0 {
				got.Headers = nil
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestSchedule holds that an event of a schedule, from either of the platform's two, runs the drain until the
// invocation's end, and that its answer is the report.
func TestSchedule(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"schedule-rule", "schedule-scheduler"} {
		ends := time.Now().Add(time.Minute)
		f := &Function{Drain: func(ctx context.Context) any {
			if deadline, ok := ctx.Deadline(); !ok || !deadline.Equal(ends) {
				t.Errorf("it ends at %s (%v), want %s", deadline, ok, ends)
			}
			return map[string]int{"delivered": 7}
		}}
		ctx, cancel := context.WithDeadline(t.Context(), ends)
		defer cancel()
		if got, err := f.Invoke(ctx, modelled(t, name)); err != nil || string(got) != `{"delivered":7}` {
			t.Errorf("%s: got %s, %v", name, got, err)
		}
	}
}

// TestOddEvents holds that what is neither gets an answer that says so, which senders try again, and a line in the log
// that shows nothing of what may be a request.
func TestOddEvents(t *testing.T) {
	t.Parallel()
	read := func(name string) string { return string(modelled(t, name)) }
	fields := map[string]int{}
	for i := range 40 {
		fields[fmt.Sprint("x", 10+i, strings.Repeat("y", 100))] = 1
	}
	raw, _ := json.Marshal(fields)
	many := string(raw)
	for _, row := range []struct{ name, event, kind, log string }{
		{"a REST API", read("unknown-rest-api"), "unknown-event", `"has":["body","headers","httpMethod"`},
		{"a load balancer", read("unknown-load-balancer"), "unknown-event", `payload format 2.0`},
		{"a queue", read("unknown-queue"), "unknown-event", `"has":["Records"]`},
		{"another event", read("unknown-event"), "unknown-event", `"detail-type"`},
		{"by hand", `{"secret":"sesame"}`, "unknown-event", `"has":["secret"]`},
		{"empty", `{}`, "unknown-event", `"has":null`},
		{"null", `null`, "unknown-event", `"has":null`},
		{"many fields", many, "unknown-event", `"has":["x10y`},
		{"a number", `7`, "bad-event", "could not be read"},
		{"not JSON", `{"sesame`, "bad-event", "could not be read"},
		{"nothing", ``, "bad-event", "could not be read"},
		{"a header of another shape", `{"headers":{"a":["sesame"]},"requestContext":{"http":{"method":"POST"}}}`,
			"bad-event", "could not be read"},
		{"HTTP of another shape", `{"requestContext":{"http":5}}`, "bad-event", "could not be read"},
		{"not base64", `{"requestContext":{"http":{"method":"POST"}},"body":"%sesame","isBase64Encoded":true}`,
			"bad-event", "could not be read"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			f := &Function{Log: slog.New(slog.NewJSONHandler(&log, nil))} // neither a door nor a drain is asked
			response := respond(t, f, []byte(row.event))
			if response.StatusCode != http.StatusInternalServerError ||
				!strings.Contains(response.Body, "urn:fallback:problem:"+row.kind+`"`) ||
				response.Headers["Content-Type"] != "application/problem+json" {
				t.Errorf("got %+v, want 500 and %s", response, row.kind)
			}
			if !strings.Contains(log.String(), row.log) || strings.Contains(log.String()+response.Body, "sesame") ||
				log.Len() > 2000 {
				t.Errorf("logged %s, want %s and no value", &log, row.log)
			}
		})
	}
}

// TestPanics holds that a bug of ours is an answer, too: the process would end with its connection.
func TestPanics(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	f := &Function{
		Door:  http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
		Drain: func(context.Context) any { panic("boom") },
		Log:   slog.New(slog.NewJSONHandler(&log, nil)),
	}
	for _, name := range []string{"function-url-json", "schedule-rule"} {
		log.Reset()
		if r := respond(t, f, modelled(t, name)); r.StatusCode != http.StatusInternalServerError ||
			strings.Contains(r.Body, "boom") {
			t.Errorf("%s: got %+v", name, r)
		}
		if !strings.Contains(log.String(), "stack") {
			t.Errorf("%s: logged %s", name, &log)
		}
	}
}

// FuzzInvoke holds that no event makes the function fail towards the platform, and that no request reaches the door
// that could not have come over a wire.
func FuzzInvoke(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal(err, len(files))
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	function := &Function{
		Door: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.RequestURI, "/") || strings.ContainsAny(r.RequestURI, " \r\n") {
				w.WriteHeader(http.StatusNotImplemented)
			}
			_, _ = io.Copy(w, r.Body)
		}),
		Drain: func(context.Context) any { return struct{}{} },
		Log:   slog.New(slog.DiscardHandler),
	}
	f.Fuzz(func(t *testing.T, event []byte) {
		var response struct{ StatusCode *int }
		out := invoke(t, function, event)
		if err := json.Unmarshal(out, &response); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		if s := response.StatusCode; s != nil && (*s < 200 || *s == http.StatusNotImplemented) {
			t.Errorf("status %d", *s)
		}
	})
}
