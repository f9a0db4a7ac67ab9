package httpapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/envelope"
)

// TestOutcomes holds that each request is counted once, as what its answer says, after as long as it took; and that
// questions about the server itself are not counted.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	const took = 3 * time.Millisecond
	slow := func(err error) store {
		return store{publish: func(context.Context, *envelope.Request) error { time.Sleep(took); return err }}
	}
	broken := store{publish: func(context.Context, *envelope.Request) error { panic("on purpose") }}
	for _, row := range []struct {
		name    string
		request *http.Request
		store   store
		outcome string
		took    time.Duration
	}{
		{"stored", request("POST", "/fallback", "x"), slow(nil), "accepted", took},
		{"refused by the store", request("POST", "/fallback", "x"), slow(failure{"queue-full", "full"}), "queue-full",
			took},
		{"refused for no reason", request("POST", "/fallback", "x"), slow(context.DeadlineExceeded), "not-stored",
			took},
		{"too large", request("POST", "/fallback", strings.Repeat("x", 17)), slow(nil), "body-too-large", 0},
		{"elsewhere", request("POST", "/", "x"), slow(nil), "not-found", 0},
		{"a read", request("GET", "/fallback", ""), slow(nil), "method-not-queued", 0},
		{"a bug", request("POST", "/fallback", "x"), broken, "internal", 0},
		{"life", request("GET", "/livez", ""), slow(nil), "", 0},
		{"readiness", request("GET", "/readyz", ""), slow(nil), "", 0},
		{"metrics", request("GET", "/metrics", ""), slow(nil), "", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := options()
				var got []string
				o.Answered = func(outcome string, took time.Duration) {
					got = append(got, outcome)
					if took != row.took {
						t.Errorf("took %s, want %s", took, row.took)
					}
				}
				o.Metrics = http.NotFoundHandler()
				w := serve(door(t, o, row.store), row.request)
				var want []string
				if row.outcome != "" {
					want = []string{row.outcome}
				}
				if !slices.Equal(got, want) {
					t.Errorf("counted %q, want %q", got, want)
				}
				if w.Code >= 400 && row.outcome != "" {
					checkAnswer(t, w, w.Code, row.outcome)
				}
			})
		})
	}
}

// TestMetricsPath holds that /metrics is ours behind every prefix if there are metrics, for GET and HEAD only, and a
// path like any other if there are none.
func TestMetricsPath(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"/fallback", "/"} {
		o := options()
		o.Prefix = prefix
		without := serve(door(t, o, store{}), request("GET", "/metrics", ""))
		elsewhere := serve(door(t, o, store{}), request("GET", "/elsewhere", ""))
		if without.Code != elsewhere.Code {
			t.Errorf("prefix %s, without metrics: got %d, want %d as for any path", prefix, without.Code,
				elsewhere.Code)
		}
		o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
		d := door(t, o, store{})
		for _, r := range []*http.Request{request("GET", "/metrics", ""), request("HEAD", "/metrics", ""),
			request("GET", "/metrics?x=1", "")} {
			if w := serve(d, r); w.Code != http.StatusTeapot {
				t.Errorf("prefix %s, %s %s: got %d", prefix, r.Method, r.RequestURI, w.Code)
			}
		}
		want := map[string]int{"/": 202, "/fallback": 404}[prefix]
		if w := serve(d, request("POST", "/metrics", "x")); w.Code != want {
			t.Errorf("prefix %s, POST: got %d, want %d", prefix, w.Code, want)
		}
	}
}

// TestInHand holds that what is in hand is told while it is, and is gone when the answer is counted.
func TestInHand(t *testing.T) {
	t.Parallel()
	var d *Door
	check := func(when string, wantRequests, wantBytes int64) {
		t.Helper()
		if requests, bytes := d.InHand(); requests != wantRequests || bytes != wantBytes {
			t.Errorf("%s: got %d requests and %d bytes, want %d and %d", when, requests, bytes, wantRequests, wantBytes)
		}
	}
	o := options()
	o.Answered = func(string, time.Duration) { check("counted", 0, 0) }
	d = door(t, o, store{publish: func(context.Context, *envelope.Request) error { check("stored", 1, 5); return nil }})
	d.ServeHTTP(httptest.NewRecorder(), request("POST", "/fallback", "12345"))
}
