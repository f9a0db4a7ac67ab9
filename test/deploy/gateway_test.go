package deploy_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"fallback/test/deploy"
)

// front serves a function over HTTP.
func front(t *testing.T, f *deploy.Function) string {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return server.URL + f.Route()
}

func request(t *testing.T, method, url, body string, header ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func send(t *testing.T, r *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// post returns the answer's body, or what went wrong: for goroutines, where a test must not end.
func post(url string) string {
	resp, err := http.Post(url, "application/json", strings.NewReader("{}"))
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

func TestThePlatformAnswersOPTIONS(t *testing.T) {
	t.Parallel()
	url := front(t, start(t, "exit")) // which would be noticed
	resp, body := send(t, request(t, "OPTIONS", url+"/x", "", "Access-Control-Request-Headers", "X-Mine"))
	if resp.StatusCode != 200 || body != "" {
		t.Errorf("got %s %q", resp.Status, body)
	}
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin":  "*",
		"Access-Control-Allow-Methods": "OPTIONS, GET, DELETE, POST, PUT, HEAD, PATCH",
		"Access-Control-Allow-Headers": "X-Mine",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestThePlatformFindsOnlyTheFunction(t *testing.T) {
	t.Parallel()
	hidden := start(t, "echo", func(c *deploy.Config) { c.Web = "false" })
	url := front(t, start(t, "echo"))
	for _, row := range []struct {
		name, method, url string
		want              int
	}{
		{"the function", "POST", url, 200},
		{"with a path", "POST", url + "/", 200},
		{"with .http", "POST", url + ".http/x", 200},
		{"another name", "POST", url + "s", 404},
		{"an extension nobody models", "POST", url + ".svg", 404},
		{"another package", "POST", strings.Replace(url, "/fallback/", "/other/", 1), 404},
		{"web: false", "POST", front(t, hidden), 404},
		{"a method the platform refuses", "TRACE", url, 405},
	} {
		t.Run(row.name, func(t *testing.T) {
			if resp, body := send(t, request(t, row.method, row.url, "")); resp.StatusCode != row.want {
				t.Errorf("got %s %s, want %d", resp.Status, body, row.want)
			}
		})
	}
}

// What a client sees of a function that misbehaves is always a 400, which it will not try again.
func TestFailuresAre400(t *testing.T) {
	t.Parallel()
	const broken = "There was an error processing your request."
	for _, row := range []struct {
		fake, message string
		fault         error
		grace         time.Duration
	}{
		{"throw", badHTTP, nil, 0},
		{"long", badHTTP, nil, 0},
		{"null", broken, deploy.ErrProtocol, 0},
		{"exit", broken, deploy.ErrExited, 0},
		{"panic", broken, deploy.ErrExited, 0},
		{"hang", broken, deploy.ErrTimeout, 0},
		{"junk before", broken, deploy.ErrProtocol, 0},
		{"no end on stderr", broken, deploy.ErrProtocol, 500 * time.Millisecond},
	} {
		t.Run(row.fake, func(t *testing.T) {
			t.Parallel()
			limit := time.Minute
			if row.fault == deploy.ErrTimeout {
				limit = time.Second
			}
			f := start(t, row.fake, grace(row.grace), timeout(limit))
			resp, body := send(t, request(t, "POST", front(t, f), "{}"))
			if got := refusal(t, body); resp.StatusCode != 400 || got != row.message {
				t.Errorf("got %s %s, want 400 %s", resp.Status, body, row.message)
			}
			if got := errors.Join(f.Faults()...); !errors.Is(got, row.fault) {
				t.Errorf("the fault is %v, want %v", got, row.fault)
			}
			if thrownAway := f.PID() == 0; thrownAway != (row.fault != nil) {
				t.Errorf("thrown away: %v", thrownAway)
			}
		})
	}
}

func TestThePlatformAnswers202WhenItIsTiredOfWaiting(t *testing.T) {
	t.Parallel()
	f := start(t, "slow", func(c *deploy.Config) { c.Blocking = 50 * time.Millisecond })
	resp, body := send(t, request(t, "POST", front(t, f), "{}"))
	if got := refusal(t, body); resp.StatusCode != 202 || got != "Response not yet ready." {
		t.Errorf("got %s %s", resp.Status, body)
	}
	// The invocation goes on, in the same process, and Close waits for it: see start.
	pid := f.PID()
	if err := f.Close(); err != nil || len(f.Faults()) > 0 || pid == 0 {
		t.Errorf("close: %v; faults: %v; pid %d", err, f.Faults(), pid)
	}
	if resp, body := send(t, request(t, "POST", front(t, f), "{}")); resp.StatusCode != 503 {
		t.Errorf("after Close: got %s %s, want 503", resp.Status, body)
	}
}

func TestConcurrentRequestsTakeTurns(t *testing.T) {
	t.Parallel()
	f := start(t, "count")
	url := front(t, f) + ".json"
	bodies := make(chan string)
	for range 8 {
		go func() {
			bodies <- post(url)
		}()
	}
	var got []string
	for range 8 {
		got = append(got, <-bodies)
	}
	slices.Sort(got)
	if want := []string{`{"n":1}`, `{"n":2}`, `{"n":3}`, `{"n":4}`, `{"n":5}`, `{"n":6}`, `{"n":7}`,
		`{"n":8}`}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
