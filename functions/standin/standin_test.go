package standin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// ask is a request that the primary gets over no network; as the drain's if it has an id.
func ask(p *API, method, target, id, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if id != "" {
		r.Header.Set("Fallback-Id", id)
		r.Header.Set("Fallback-Attempt", "1")
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

func quiet(t *testing.T, mode string) *API {
	t.Helper()
	p := New(slog.New(slog.DiscardHandler))
	if err := p.Be(mode); err != nil {
		t.Fatal(err)
	}
	return p
}

func arrivals(t *testing.T, p *API) (got []arrival) {
	t.Helper()
	if err := json.Unmarshal(ask(p, "GET", "/_primary/requests", "", "").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// TestArrivals holds what is shown of a request, which paths are no requests, and that only the last ones are kept.
func TestArrivals(t *testing.T) {
	t.Parallel()
	p := quiet(t, "up")
	if got := ask(p, "GET", "/_primary/requests", "", "").Body.String(); got != "[]\n" {
		t.Errorf("at first: got %q", got)
	}
	probe := httptest.NewRequest("GET", "/", nil)
	probe.Header.Set("User-Agent", "fallback-probe")
	p.ServeHTTP(httptest.NewRecorder(), probe)
	if w := ask(p, "GET", "/readyz", "", ""); w.Code != 200 {
		t.Errorf("/readyz: got %d", w.Code)
	}
	if w := ask(p, "POST", "/_primary/nothing", "", ""); w.Code != 404 {
		t.Errorf("an unknown path of its own: got %d", w.Code)
	}
	// A tidier path would be another one.
	if w := ask(p, "POST", "/a//b/../c?x=1&y", "the-id", strings.Repeat("x", 300)); w.Code != 200 {
		t.Errorf("got %d", w.Code)
	}
	got := arrivals(t, p)
	if len(got) != 1 {
		t.Fatalf("got %+v, want the one request", got)
	}
	got[0].At = time.Time{}
	want := arrival{Method: "POST", Target: "/a//b/../c?x=1&y", ID: "the-id", Attempt: "1",
		Body: strings.Repeat("x", 200), Answer: 200}
	if got[0] != want {
		t.Errorf("got %+v, want %+v", got[0], want)
	}
	for i := range 150 {
		ask(p, "POST", fmt.Sprint("/", i), "", "")
	}
	if got := arrivals(t, p); len(got) != 100 || got[0].Target != "/50" || got[99].Target != "/149" {
		t.Errorf("of 151: got %d, from %+v", len(got), got[0])
	}
}

// TestModes holds what each mode answers, and after how long.
func TestModes(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		mode, body string
		want       []int // the answers to one request after the other
		takes      time.Duration
	}{
		{"up", "", []int{200, 200, 200}, 0},
		{"slow", "", []int{200}, 2 * time.Second},
		{"limited", "", []int{200, 200, 429, 429}, 0},
		{"picky", `{"order":42}`, []int{200}, 0},
		{"picky", `{"Order":42}`, []int{422}, 0},
		{"picky", `["order"]`, []int{422}, 0},
		{"picky", ``, []int{422}, 0},
	} {
		t.Run(row.mode+row.body, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := quiet(t, row.mode)
				begin := time.Now()
				for i, want := range row.want {
					w := ask(p, "POST", "/orders", "", row.body)
					if w.Code != want {
						t.Errorf("request %d: got %d, want %d", i, w.Code, want)
					}
					if after := w.Header().Get("Retry-After"); (after == "1") != (want == 429) {
						t.Errorf("request %d: Retry-After %q", i, after)
					}
				}
				if took := time.Since(begin); took != row.takes {
					t.Errorf("it took %s, want %s", took, row.takes)
				}
				if row.mode != "limited" {
					return
				}
				time.Sleep(time.Second)
				if w := ask(p, "POST", "/orders", "", ""); w.Code != 200 {
					t.Errorf("after the time it asked for: got %d", w.Code)
				}
			})
		})
	}
}

// TestIsTold holds that it changes its mode when it is told so, over the network, and hears no nonsense.
func TestIsTold(t *testing.T) {
	t.Parallel()
	p := quiet(t, "down")
	server := httptest.NewServer(p)
	defer server.Close()
	tell := func(mode string) (int, string) {
		t.Helper()
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, server.URL+"/_primary/mode",
			strings.NewReader(mode))
		answer, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(body)
	}
	if answer, err := server.Client().Get(server.URL + "/"); err == nil {
		t.Errorf("down: got %s", answer.Status)
	}
	if status, body := tell("sideways"); status != 400 ||
		!strings.Contains(body, `"sideways"; there are up, down, slow, limited, picky`) {
		t.Errorf("an unknown mode: got %d %q", status, body)
	}
	if status, body := tell(strings.Repeat("up", 1000)); status != 400 {
		t.Errorf("a mode of 2,000 bytes: got %d %q", status, body)
	}
	if got := ask(p, "GET", "/_primary/mode", "", "").Body.String(); !strings.HasPrefix(got, "down: ") {
		t.Errorf("after modes that are none: %q", got)
	}
	if status, body := tell("up\n"); status != 200 || !strings.HasPrefix(body, "up: ") {
		t.Errorf("up: got %d %q", status, body)
	}
	answer, err := server.Client().Get(server.URL + "/")
	if err != nil || answer.StatusCode != 200 {
		t.Errorf("up: got %v %v", answer, err)
	}
	if err == nil {
		answer.Body.Close()
	}
}

// TestRun holds how it begins and ends.
func TestRun(t *testing.T) {
	t.Parallel()
	if err := quiet(t, "up").Run(t.Context(), "nowhere"); err == nil || !strings.Contains(err.Error(), "--addr") {
		t.Errorf("no address: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := quiet(t, "up").Run(ctx, "127.0.0.1:0"); err != nil {
		t.Errorf("ended: %v", err)
	}
}
