package drain

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/envelope"
	"fallback/functions/target"
)

// TestRetryAfterOverHTTP holds, with a primary that speaks HTTP, that after a Retry-After, in seconds or as a date, nothing
// at all is sent before its time has come, not even a probe, and that all is sent soon after.
func TestRetryAfterOverHTTP(t *testing.T) {
	t.Parallel()
	const wait = 2 * time.Minute
	for _, row := range []struct {
		name   string
		status int
		after  func() string
	}{
		{"503, seconds", 503, func() string { return "120" }},
		{"429, seconds", 429, func() string { return "120" }},
		{"503, a date", 503, func() string { return time.Now().Add(wait).UTC().Format(http.TimeFormat) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var retryAfter string
			var sent atomic.Int64
			// It is outside the bubble, in whose time the drain waits. A connection that is kept would stop that time.
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Connection", "close")
				if r.Method == http.MethodPost && sent.Add(1) == 1 {
					w.Header().Set("Retry-After", retryAfter)
					w.WriteHeader(row.status)
				}
			}))
			t.Cleanup(server.Close)
			synctest.Test(t, func(t *testing.T) {
				retryAfter = row.after()
				client, err := target.New(target.Options{URL: server.URL})
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				q := newMemory(3)
				for _, m := range q.ready {
					m.request.Method, m.request.Header = http.MethodPost, http.Header{}
				}
				begin, asked := time.Now(), &timed{Target: client}
				r := New(options(), q, asked).Once(context.Background(), Budget{Time: time.Hour})
				if r.Delivered != 3 || r.Pauses != 1 || r.Retried+r.Parked != 0 || sent.Load() != 4 {
					t.Errorf("%d were sent, got %+v", sent.Load(), r)
				}
				for i, at := range asked.at { // a probe, the one that pauses, a probe, and all three
					switch since := at.Sub(begin); {
					case i < 2 && since > time.Second, i >= 2 && (since < wait || since > wait+2*time.Second):
						t.Errorf("number %d of %d was asked after %s", i, len(asked.at), since)
					}
				}
			})
		})
	}
}

// timed notes when a primary is asked; one at a time is.
type timed struct {
	Target
	at []time.Time
}

func (p *timed) Probe(ctx context.Context) (bool, target.Verdict) {
	p.at = append(p.at, time.Now())
	return p.Target.Probe(ctx)
}

func (p *timed) Send(ctx context.Context, r *envelope.Request, attempt int) target.Verdict {
	p.at = append(p.at, time.Now())
	return p.Target.Send(ctx, r, attempt)
}
