package worker

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"fallback/functions/app"
	"fallback/functions/config"
)

// TestScheduleEnds holds that a worker whose runs come one after the other ends at once, with the run that is under
// way.
func TestScheduleEnds(t *testing.T) {
	t.Parallel()
	c, err := config.Load(func(name string) (string, bool) {
		value, ok := map[string]string{
			"AMQP_SERVER_URL": "amqp://user:password@127.0.0.1:1/", "FALLBACK_TARGET_URL": "http://127.0.0.1:1",
		}[name]
		return value, ok
	}, "AMQP_SERVER_URL")
	if err != nil {
		t.Fatal(err)
	}
	c.Schedule = "1ms" // no setting may be as short; here a run is due at any moment
	for range 5 {
		d, err := app.NewDrain(c, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		begin := time.Now()
		err = schedule(ctx, c, d, slog.New(slog.DiscardHandler))
		cancel()
		if took := time.Since(begin); err != nil || took > 10*time.Second {
			t.Fatalf("it ended after %s: %v", took, err)
		}
	}
}

// TestScheduleIsTaken holds that the scheduler takes what the settings let pass.
func TestScheduleIsTaken(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"1m", "1h30m", "0 3 * * *", "*/5 * * * 1-5", "@daily", "@every 1h",
		"TZ=UTC 0 3 * * *"} {
		c, err := config.Load(func(name string) (string, bool) {
			value, ok := map[string]string{
				"AMQP_SERVER_URL": "amqp://127.0.0.1:1/", "FALLBACK_TARGET_URL": "http://127.0.0.1:1",
				"FALLBACK_DRAIN_SCHEDULE": when,
			}[name]
			return value, ok
		})
		if err != nil {
			t.Errorf("%s: %v", when, err)
			continue
		}
		d, err := app.NewDrain(c, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := schedule(ctx, c, d, slog.New(slog.DiscardHandler)); err != nil {
			t.Errorf("%s: the scheduler refuses it: %v", when, err)
		}
	}
}

// TestHealthIsBounded holds that a worker's own port takes no more of a head than the server's does.
func TestHealthIsBounded(t *testing.T) {
	t.Parallel()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	ask := func(fields string) string {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"+fields+"\r\n")
		answer, _ := io.ReadAll(conn)
		return string(answer)
	}
	h := health{address, slog.New(slog.DiscardHandler), http.NotFoundHandler(), func() error { return nil }}
	err = h.while(t.Context(), func(context.Context) error {
		for _, row := range []struct{ name, fields, want string }{
			{"a probe", "", "HTTP/1.1 200 OK"},
			{"as many lines as can be", strings.Repeat("a:\r\n", 510), "HTTP/1.1 200 OK"},
			{"more", strings.Repeat("a:\r\n", 511), "urn:fallback:problem:headers-too-large"},
			{"far more", strings.Repeat("a:\r\n", 10_000), "urn:fallback:problem:headers-too-large"},
			{"a long line", "X: " + strings.Repeat("x", 70_000) + "\r\n", "urn:fallback:problem:headers-too-large"},
		} {
			if got := ask(row.fields); !strings.Contains(got, row.want) {
				t.Errorf("%s: got %.300q, want %s", row.name, got, row.want)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
