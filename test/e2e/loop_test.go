//go:build e2e

package e2e

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"fallback/test/harness"
)

// failover starts a proxy before a primary that hands on to the door what the primary does not take, reads only if
// they are to fail over, too; else it answers them by itself.
func failover(t *testing.T, primary, door string, reads bool) *harness.Primary {
	t.Helper()
	try := func(w http.ResponseWriter, r *http.Request, base string, body []byte) bool {
		out, err := http.NewRequestWithContext(r.Context(), r.Method, base+r.RequestURI, bytes.NewReader(body))
		if err != nil {
			return false
		}
		out.Header = r.Header.Clone()
		answer, err := http.DefaultTransport.RoundTrip(out)
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		w.WriteHeader(answer.StatusCode)
		_, _ = io.Copy(w, answer.Body)
		return true
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method == http.MethodGet && !reads {
			return
		}
		if !try(w, r, primary, body) && !try(w, r, door+"/fallback", body) {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	t.Cleanup(proxy.Close)
	return &harness.Primary{URL: proxy.URL}
}

// TestLoop holds that a drain whose target is a proxy that fails over to the door makes no loop: the request stays the
// one that it is, the drain says what is wrong, and delivers it when the primary is back.
func TestLoop(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		reads bool
	}{
		{"all fails over", true},
		{"writes fail over, and the proxy answers the probe", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			vhost := broker.VHost(t)
			server := vhost.Serve(t, harness.Settings{"FALLBACK_TOKENS": "sesame"}) // the drain sends none
			primary := harness.NewPrimary(t, nil)
			primary.Down()
			d, _ := vhost.Drain(t, failover(t, primary.URL, server.URL, row.reads), nil)
			sent := send(t, "POST", server.URL+"/fallback/orders", "x", "Fallback-Authorization", "Bearer sesame")
			checkAccepted(t, sent)
			r := onceFor(t, d, 4*time.Second)
			if r.Delivered+r.Parked != 0 || !strings.Contains(r.LastError, "loop") {
				t.Errorf("while the primary is down: got %+v, want the loop named", r)
			}
			s := scrape(t, server.URL)
			if s[`fallback_requests_total{outcome="accepted"}`] != 1 ||
				s[`fallback_requests_total{outcome="loop"}`] == 0 {
				t.Errorf("the door has taken %v and refused %v as a loop, want 1 and some",
					s[`fallback_requests_total{outcome="accepted"}`], s[`fallback_requests_total{outcome="loop"}`])
			}
			primary.Up(t)
			harness.Eventually(t, "the request to be delivered", func() bool {
				_ = once(t, d)
				return len(primary.Got()) > 0
			})
			got := primary.Got()
			if len(got) != 1 || got[0].Header.Get("Fallback-Id") != sent.id() || got[0].Target != "/orders" {
				t.Errorf("the primary got %d, the first %s with id %s, want one with %s", len(got), got[0].Target,
					got[0].Header.Get("Fallback-Id"), sent.id())
			}
		})
	}
}

// TestSecondFallback holds that one Fallback drains into another: the request keeps its id, its time and its sender,
// and is known to have gone through a door.
func TestSecondFallback(t *testing.T) {
	t.Parallel()
	const secret = "whsec_ZmFsbGJhY2stdGVzdC1zZWNyZXQ="
	near, far := broker.VHost(t), broker.VHost(t)
	first := near.Serve(t, nil)
	second := far.Serve(t, harness.Settings{"FALLBACK_TOKENS": "sesame", "FALLBACK_ACCEPT_REPLAYS": secret})
	primary := harness.NewPrimary(t, nil)
	forward, _ := near.Drain(t, &harness.Primary{URL: second.URL + "/fallback"},
		harness.Settings{"FALLBACK_REPLAY_SECRET": secret})
	deliver, _ := far.Drain(t, primary, nil)
	sent := send(t, "POST", first.URL+"/fallback/orders", "x", "Fallback-Hops", "3", "X-Forwarded-For", "198.51.100.9")
	checkAccepted(t, sent)
	if r := once(t, forward); r.Delivered != 1 {
		t.Fatalf("to the second: got %+v", r)
	}
	if r := once(t, deliver); r.Delivered != 1 {
		t.Fatalf("to the primary: got %+v", r)
	}
	got := primary.Got()
	if len(got) != 1 {
		t.Fatalf("the primary got %d", len(got))
	}
	for name, want := range map[string]string{
		"Fallback-Id": sent.id(), "Fallback-Hops": "1", "Fallback-Attempt": "1", "Idempotency-Key": sent.id(),
		"X-Forwarded-For": "198.51.100.9, 127.0.0.1, 127.0.0.1",
	} {
		if got := got[0].Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got[0].Target != "/orders" {
		t.Errorf("got %s", got[0].Target)
	}
	if uses := scrape(t, second.URL)[`fallback_key_uses_total{kind="replay",place="1"}`]; uses != 1 {
		t.Errorf("the secret is counted %v times, want once", uses)
	}
}
