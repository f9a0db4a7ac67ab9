package deploy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"fallback/test/deploy"
	"fallback/test/harness"
)

// The Lambdas of these tests are this test binary, too.
func init() {
	loop := func(answer func(*call)) func() int { return func() int { return runLambda(answer) } }
	for name, run := range map[string]func() int{
		"echo":  loop(func(c *call) { c.respond(c.event) }),
		"count": loop(countCalls()),
		"env":   loop(func(c *call) { c.respond([]byte(encode(os.Environ()))) }),
		"times": loop(func(c *call) {
			c.respond([]byte(encode(map[string]string{"deadline": c.header.Get("Lambda-Runtime-Deadline-Ms")})))
		}),
		"long":       loop(func(c *call) { c.respond(bytes.Repeat([]byte("1"), 6<<20+1)) }),
		"text":       loop(func(c *call) { c.respond([]byte("oops")) }),
		"say":        loop(sayBody),
		"error":      loop(func(c *call) { c.post("error", []byte(`{"errorMessage":"boom"}`)) }),
		"hang":       loop(func(*call) { linger() }),
		"exit":       loop(func(*call) { os.Exit(3) }),
		"silent":     loop(func(*call) {}),
		"wrong id":   loop(func(c *call) { c.id = "another"; c.respond(c.event) }),
		"twice":      loop(func(c *call) { c.respond(c.event); c.respond(c.event) }),
		"stillborn":  func() int { fmt.Fprintln(os.Stderr, "no broker"); return 1 },
		"mute":       func() int { linger(); return 0 },
		"init error": initError,
		"told":       func() int { return told(0) },
		"told badly": func() int { return told(7) },
		"stubborn":   stubborn,
		"too late":   tooLate,
		"hears all":  func() int { return 10 + register(`{"events":["SHUTDOWN"]}`)/100 },
	} {
		fakes["lambda "+name] = run
	}
}

// call is one event in a fake's hand.
type call struct {
	id     string
	event  []byte
	header http.Header
}

func runtimeAPI(path string) string { return "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + path }

func runLambda(answer func(*call)) int {
	for {
		response, err := http.Get(runtimeAPI("/2018-06-01/runtime/invocation/next"))
		if err != nil {
			return 9
		}
		event, _ := io.ReadAll(response.Body)
		response.Body.Close()
		answer(&call{response.Header.Get("Lambda-Runtime-Aws-Request-Id"), event, response.Header})
	}
}

func (c *call) respond(result []byte) { c.post("response", result) }

// post says on the log how the API answered, if not well.
func (c *call) post(what string, body []byte) {
	response, err := http.Post(runtimeAPI("/2018-06-01/runtime/invocation/"+c.id+"/"+what), "application/json",
		bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusAccepted {
		fmt.Println("the API says", response.StatusCode)
	}
}

func countCalls() func(*call) {
	n := 0
	return func(c *call) {
		n++
		fmt.Println("on stdout")
		c.respond([]byte(encode(map[string]int{"n": n})))
	}
}

// sayBody answers with the request's body, which is the result to give.
func sayBody(c *call) {
	var event struct{ Body string }
	_ = json.Unmarshal(c.event, &event)
	c.respond([]byte(event.Body))
}

func initError() int {
	_, _ = http.Post(runtimeAPI("/2018-06-01/runtime/init/error"), "application/json",
		strings.NewReader(`{"errorMessage":"no settings"}`))
	return 1
}

// register registers an extension and returns the status.
func register(body string) int {
	request, _ := http.NewRequest(http.MethodPost, runtimeAPI("/2020-01-01/extension/register"),
		strings.NewReader(body))
	request.Header.Set("Lambda-Extension-Name", "fake")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

// told hears of its end, and then exits.
func told(code int) int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	go func() {
		<-signals
		fmt.Println("told")
		os.Exit(code)
	}()
	if register(`{}`) != http.StatusOK {
		return 8
	}
	go http.Get(runtimeAPI("/2020-01-01/extension/event/next"))
	return runLambda(func(c *call) { c.respond(c.event) })
}

func stubborn() int {
	signal.Ignore(syscall.SIGTERM)
	register(`{}`)
	go http.Get(runtimeAPI("/2020-01-01/extension/event/next"))
	return runLambda(func(c *call) { c.respond(c.event) })
}

// tooLate registers after its first event.
func tooLate() int {
	return runLambda(func(c *call) { c.respond([]byte(encode(register(`{}`)))) })
}

func startLambda(t *testing.T, fake string, adjust ...func(*deploy.LambdaConfig)) *deploy.Lambda {
	t.Helper()
	l, err := deploy.StartLambda(t.Context(), lambdaConfig(t, fake, adjust...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func lambdaConfig(t *testing.T, fake string, adjust ...func(*deploy.LambdaConfig)) deploy.LambdaConfig {
	t.Helper()
	c := config(t, "lambda "+fake)
	out := deploy.LambdaConfig{Bootstrap: c.Exec, Env: c.Env}
	for _, adjust := range adjust {
		adjust(&out)
	}
	return out
}

func TestLambdaInvocations(t *testing.T) {
	t.Parallel()
	l := startLambda(t, "count")
	pid := l.PID()
	for i := 1; i <= 3; i++ {
		got, err := l.Invoke(t.Context(), json.RawMessage(`{}`))
		if want := fmt.Sprintf(`{"n":%d}`, i); err != nil || string(got) != want {
			t.Errorf("invocation %d: got %s, %v, want %s", i, got, err, want)
		}
		if i == 2 { // frozen now, and thawed by the next one
			if err := l.Pause(); err != nil {
				t.Fatal(err)
			}
			harness.Eventually(t, "the process to be frozen", func() bool { return state(t, pid) == "T" })
		}
	}
	if l.PID() != pid || l.Starts() != 1 || l.Ready() <= 0 || len(l.Faults()) > 0 {
		t.Errorf("process %d after %d starts, ready after %s, faults %v", l.PID(), l.Starts(), l.Ready(), l.Faults())
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil || alive(pid) {
		t.Errorf("closed: %v, alive %v", err, alive(pid))
	}
	if strings.Count(l.Logs(), "on stdout\n") != 3 {
		t.Errorf("logs: %q", l.Logs())
	}
	if _, err := l.Invoke(t.Context(), json.RawMessage(`{}`)); !errors.Is(err, deploy.ErrClosed) {
		t.Errorf("after Close: got %v", err)
	}
}

func TestLambdaTellsDeadlineAndEnvironment(t *testing.T) {
	t.Setenv("DEPLOY_TEST_LEAK", "this process's own") // hence not parallel
	l := startLambda(t, "times", func(c *deploy.LambdaConfig) { c.Timeout = 7 * time.Second })
	before := time.Now()
	got, err := l.Invoke(t.Context(), json.RawMessage(`{}`))
	var ms int64
	if _, scanErr := fmt.Sscanf(string(got), `{"deadline":"%d"}`, &ms); err != nil || scanErr != nil {
		t.Fatalf("got %s, %v", got, err)
	}
	checkDeadline(t, ms, before)
	got, err = startLambda(t, "env").Invoke(t.Context(), json.RawMessage(`{}`))
	if err != nil || strings.Contains(string(got), "LEAK") || strings.Contains(string(got), "HOME=") ||
		!strings.Contains(string(got), "_HANDLER=") {
		t.Errorf("got %s, %v", got, err)
	}
}

// TestLambdaFaults holds what becomes of an invocation without a result, and of the process.
func TestLambdaFaults(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		fake string
		want error
		goes bool // the process goes on
	}{
		{"error", deploy.ErrFunction, true},
		{"long", deploy.ErrFunction, true},
		{"hang", deploy.ErrTimeout, false},
		{"exit", deploy.ErrExited, false},
		{"silent", deploy.ErrRuntime, false},
		{"wrong id", deploy.ErrRuntime, false},
	} {
		t.Run(row.fake, func(t *testing.T) {
			t.Parallel()
			l := startLambda(t, row.fake, func(c *deploy.LambdaConfig) {
				if c.Timeout = time.Minute; row.want == deploy.ErrTimeout {
					c.Timeout = 2 * time.Second
				}
			})
			first := l.PID()
			for range 2 {
				if _, err := l.Invoke(t.Context(), json.RawMessage(`{}`)); !errors.Is(err, row.want) {
					t.Errorf("got %v, want %v", err, row.want)
				}
			}
			if starts := l.Starts(); (starts == 1) != row.goes || alive(first) != row.goes || len(l.Faults()) != 2 {
				t.Errorf("%d starts, the first alive: %v, faults %v", starts, alive(first), l.Faults())
			}
		})
	}
	t.Run("twice", func(t *testing.T) {
		t.Parallel()
		l := startLambda(t, "twice")
		if _, err := l.Invoke(t.Context(), json.RawMessage(`{}`)); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, "the second answer to be refused", func() bool {
			return strings.Contains(l.Logs(), "the API says 400")
		})
	})
}

func TestLambdaStarts(t *testing.T) {
	t.Parallel()
	for fake, want := range map[string]string{
		// 10 and 403
		"stillborn": "no broker", "mute": "not ready within", "init error": "no settings",
		"hears all": "exit status 14",
	} {
		_, err := deploy.StartLambda(t.Context(), lambdaConfig(t, fake, func(c *deploy.LambdaConfig) {
			if c.Init = time.Minute; fake == "mute" {
				c.Init = 2 * time.Second
			}
		}))
		if !errors.Is(err, deploy.ErrStart) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", fake, err, want)
		}
	}
	if got, err := startLambda(t, "too late").Invoke(t.Context(), json.RawMessage(`{}`)); err != nil ||
		string(got) != "403" {
		t.Errorf("an extension after the first event: got %s, %v", got, err)
	}
}

// TestLambdaEnds holds that only who registered is told of the end, frozen or not, and must then go.
func TestLambdaEnds(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		fake  string
		pause bool
		want  string
		says  string
	}{
		{"told", false, "", "told"},
		{"told", true, "", "told"},
		{"told badly", false, "exit status 7", "told"},
		{"stubborn", false, "still running", ""},
		{"echo", false, "", ""},
	} {
		l := startLambda(t, row.fake, func(c *deploy.LambdaConfig) {
			if row.fake == "stubborn" {
				c.Grace = time.Second
			}
		})
		pid := l.PID()
		if row.pause {
			if err := l.Pause(); err != nil {
				t.Fatal(err)
			}
		}
		err := l.Close()
		if (err != nil) != (row.want != "") || err != nil && !strings.Contains(err.Error(), row.want) || alive(pid) {
			t.Errorf("%s: got %v, want %q; alive %v", row.fake, err, row.want, alive(pid))
		}
		if !strings.Contains(l.Logs(), row.says) {
			t.Errorf("%s: logs %q", row.fake, l.Logs())
		}
	}
}

// TestLambdaURL holds what a Function URL, and an HTTP API with a stage, make of a request.
func TestLambdaURL(t *testing.T) {
	t.Parallel()
	type event struct {
		RawPath, RawQueryString string
		Headers                 map[string]string
		Cookies                 []string
		Body                    string
		IsBase64Encoded         bool
		RequestContext          struct {
			Stage string
			HTTP  struct{ Method, SourceIP, Protocol string }
		}
	}
	ask := func(stage, path, contentType, body string) (e event) {
		t.Helper()
		l := startLambda(t, "echo", func(c *deploy.LambdaConfig) { c.Stage = stage })
		server := httptest.NewServer(l)
		defer server.Close()
		request, _ := http.NewRequest(http.MethodPut, server.URL+path, strings.NewReader(body))
		request.Header = http.Header{"X-Tag": {"a", "b"}, "Cookie": {"a=1; b=2", "c=3"}, "Te": {"trailers"},
			"Content-Type": {contentType}}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		raw, _ := io.ReadAll(response.Body)
		if err := json.Unmarshal(raw, &e); err != nil || response.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("%s: %v in %s", response.Status, err, raw)
		}
		return e
	}
	e := ask("", "/a%2Fb%20c?x=%20&x=1", "application/json; charset=utf-8", `{"a":"<"}`)
	if e.RawPath != "/a%2Fb%20c" || e.RawQueryString != "x=%20&x=1" || e.Body != `{"a":"<"}` || e.IsBase64Encoded ||
		e.RequestContext.Stage != "$default" {
		t.Errorf("got %+v", e)
	}
	if h := e.Headers; h["x-tag"] != "a,b" || h["cookie"] != "" || h["te"] != "" ||
		h["x-forwarded-for"] != "127.0.0.1" || h["content-length"] != "9" {
		t.Errorf("headers: %v", h)
	}
	if strings.Join(e.Cookies, "|") != "a=1|b=2|c=3" || e.RequestContext.HTTP.Method != "PUT" ||
		e.RequestContext.HTTP.SourceIP != "127.0.0.1" {
		t.Errorf("got %+v", e)
	}
	if e = ask("prod", "/a%2Fb%20c", "image/png", "\xff"); e.RawPath != "/prod/a/b c" || e.Body != "/w==" ||
		!e.IsBase64Encoded || e.RequestContext.Stage != "prod" {
		t.Errorf("got %+v", e)
	}
	if e = ask("", "/", "text/plain", "\xff"); e.Body != "\ufffd" {
		t.Errorf("got %+v", e)
	}
}

// TestLambdaAnswers holds what a Function URL makes of a result.
func TestLambdaAnswers(t *testing.T) {
	t.Parallel()
	l := startLambda(t, "say")
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	for _, row := range []struct {
		result string
		status int
		body   string
	}{
		{`{"statusCode":202,"headers":{"X-A":"b"},"body":"hi","cookies":["a=1"]}`, 202, "hi"},
		{`{"statusCode":200,"body":"aGk=","isBase64Encoded":true}`, 200, "hi"},
		{`{"statusCode":200,"body":"%","isBase64Encoded":true}`, 502, ""},
		{`{"statusCode":"x"}`, 502, ""},
		{`{"statusCode":7}`, 502, ""},
		{`{"statusCode":200,"body":{}}`, 502, ""},
		{`{"delivered":7}`, 200, `{"delivered":7}`},
		{`[1]`, 200, `[1]`},
		{`oops`, 502, ""},
	} {
		response, err := http.Post(server.URL, "text/plain", strings.NewReader(row.result))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != row.status || row.body != "" && string(body) != row.body {
			t.Errorf("%s: got %s %s, want %d %s", row.result, response.Status, body, row.status, row.body)
		}
		if row.status == 202 && (response.Header.Get("X-A") != "b" || response.Header.Get("Set-Cookie") != "a=1") {
			t.Errorf("headers: %v", response.Header)
		}
	}
	// the echo is no JSON
	for size, want := range map[int]int{6 << 20: http.StatusRequestEntityTooLarge, 5_500_000: http.StatusBadGateway} {
		response, err := http.Post(server.URL, "text/plain", strings.NewReader(strings.Repeat("x", size)))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%d bytes: got %s, want %d", size, response.Status, want)
		}
	}
}
