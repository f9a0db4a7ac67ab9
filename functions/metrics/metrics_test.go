package metrics

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/config"
	"fallback/functions/drain"
	"fallback/functions/management"
)

// scrape is what /metrics says of our own series, but for comments.
func scrape(t *testing.T, h http.Handler) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Fatalf("got %d, %s: %s", w.Code, w.Header().Get("Content-Type"), w.Body)
	}
	var ours strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "fallback_") {
			ours.WriteString(line)
		}
	}
	return ours.String()
}

// check holds that a scrape has each of the lines, and no series that begins with one of the others.
func check(t *testing.T, got string, lines, absent []string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+got, "\n"+line+"\n") {
			t.Errorf("no %q in\n%s", line, got)
		}
	}
	for _, name := range absent {
		if strings.Contains("\n"+got, "\n"+name) {
			t.Errorf("%s is in\n%s", name, got)
		}
	}
}

func TestServer(t *testing.T) {
	t.Parallel()
	s := NewServer(config.Config{Tokens: []config.Secret{"one", "two"}, AcceptReplays: []config.Secret{"whsec_YQ=="}})
	s.Watch(func() (int64, int64) { return 2, 30 }, func() (bool, bool) { return true, false })
	check(t, scrape(t, s), []string{
		`fallback_requests_total{outcome="accepted"} 0`, `fallback_requests_total{outcome="queue-full"} 0`,
		`fallback_requests_total{outcome="rate-limited"} 0`, `fallback_request_duration_seconds_count 0`,
		`fallback_key_uses_total{kind="token",place="2"} 0`, `fallback_key_uses_total{kind="replay",place="1"} 0`,
		`fallback_connections_refused_total{reason="no-slot"} 0`,
		`fallback_connections_refused_total{reason="lost-slot"} 0`,
		`fallback_connections_refused_total{reason="head-too-long"} 0`,
		`fallback_connections_refused_total{reason="heads-full"} 0`,
	}, nil)
	s.Admitted("token", 2)
	s.Admitted("token", 2)
	s.Admitted("token", 3) // there is none
	for range 3 {
		s.Answered("accepted", 2*time.Millisecond)
	}
	s.Answered("queue-full", 7*time.Second)
	s.Answered("something new", 0)
	s.Refused("no-slot")
	check(t, scrape(t, s), []string{
		`fallback_requests_total{outcome="accepted"} 3`, `fallback_requests_total{outcome="queue-full"} 1`,
		`fallback_requests_total{outcome="something new"} 1`, `fallback_requests_total{outcome="rate-limited"} 0`,
		`fallback_request_duration_seconds_bucket{le="0.001"} 1`,
		`fallback_request_duration_seconds_bucket{le="0.0025"} 4`,
		`fallback_request_duration_seconds_bucket{le="5"} 4`, `fallback_request_duration_seconds_count 5`,
		`fallback_key_uses_total{kind="token",place="1"} 0`, `fallback_key_uses_total{kind="token",place="2"} 2`,
		`fallback_connections_refused_total{reason="no-slot"} 1`, `fallback_requests_in_hand 2`,
		`fallback_bytes_in_hand 30`, `fallback_broker_connected 1`, `fallback_broker_blocked 0`,
	}, nil)
}

// TestRuntime holds that the runtime's and the process's own metrics are there.
func TestRuntime(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	NewServer(config.Config{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, name := range []string{"\ngo_goroutines ", "\nprocess_start_time_seconds "} {
		if !strings.Contains(w.Body.String(), name) {
			t.Errorf("no %q", strings.TrimSpace(name))
		}
	}
}

// TestWorker holds that what has not happened yet is either 0 or not there, and never a guess.
func TestWorker(t *testing.T) {
	t.Parallel()
	w, err := NewWorker(config.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	check(t, scrape(t, w), []string{`fallback_drain_total{outcome="delivered"} 0`,
		`fallback_drain_total{outcome="held"} 0`, `fallback_drain_pauses_total 0`},
		[]string{"fallback_target_up", "fallback_drain_last_run", "fallback_queue"})
	w.Settled(drain.Delivered)
	w.Settled(drain.Delivered)
	w.Settled(drain.Parked)
	w.Probed(false)
	w.Ran(drain.Report{Pauses: 2})
	w.Ran(drain.Report{Pauses: 1})
	got := scrape(t, w)
	check(t, got, []string{
		`fallback_drain_total{outcome="delivered"} 2`, `fallback_drain_total{outcome="parked"} 1`,
		`fallback_drain_total{outcome="expired"} 0`,
		`fallback_drain_pauses_total 3`, `fallback_target_up 0`,
	}, []string{"fallback_queue"})
	if !strings.Contains(got, "fallback_drain_last_run_timestamp_seconds 1") { // the Unix time, in whatever form
		t.Errorf("no time of the last run in\n%s", got)
	}
	w.Probed(true)
	check(t, scrape(t, w), []string{"fallback_target_up 1"}, nil)
}

// TestQueues holds that depths are there when they are known and absent when not, that many scrapes are one question,
// that a broker which does not answer does not hold up a scrape for long, and that the log says it once.
func TestQueues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var asked int
		var answer func(context.Context) ([]management.Queue, error)
		q := newQueues(func(ctx context.Context) ([]management.Queue, error) { asked++; return answer(ctx) },
			slog.New(slog.NewTextHandler(&log, nil)))
		h := handler(newRegistry(q))
		const main, parked, up = `fallback_queue_messages{queue="Main"} 7`,
			`fallback_queue_messages{queue="Main.parked"} 0`, "fallback_queues_up "

		answer = func(context.Context) ([]management.Queue, error) {
			return []management.Queue{{Name: "Main", Messages: 7}, {Name: "Main.parked"}}, nil
		}
		for range 5 {
			check(t, scrape(t, h), []string{main, parked, up + "1"}, nil)
		}
		if asked != 1 || log.Len() > 0 {
			t.Errorf("asked %d times for five scrapes at once, want once; logged %s", asked, &log)
		}

		time.Sleep(readEvery)
		answer = func(context.Context) ([]management.Queue, error) {
			return []management.Queue{{Name: "Main", Messages: 7}, {Name: "Main.parked", Err: management.ErrNotFound}},
				nil
		}
		check(t, scrape(t, h), []string{main, up + "0"}, []string{`fallback_queue_messages{queue="Main.parked"}`})

		answer = func(ctx context.Context) ([]management.Queue, error) {
			<-ctx.Done()
			return nil, errors.New("no answer")
		}
		for range 3 {
			time.Sleep(readEvery)
			begin := time.Now()
			check(t, scrape(t, h), []string{up + "0"}, []string{"fallback_queue_messages"})
			if took := time.Since(begin); took != readTimeout {
				t.Errorf("took %s, want %s", took, readTimeout)
			}
		}
		if n := strings.Count(log.String(), "no answer"); n != 1 {
			t.Errorf("it is logged %d times, want once:\n%s", n, &log)
		}
	})
}
