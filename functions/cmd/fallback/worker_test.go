package main

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"fallback/functions/app"
	"fallback/functions/config"
)

// TestScheduleEnds holds that a worker whose runs come one after the other ends at once, with the run that is under way.
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

// TestScheduleIsRead holds that a schedule which is none is refused with the settings, by every command in the same words,
// whether there is a target or not, and that the scheduler takes what they let pass.
func TestScheduleIsRead(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ schedule, says string }{
		{"daily", "expected exactly 5 fields, found 1"},
		{"0 3 * *", "expected exactly 5 fields, found 4"},
		{"0 0 3 * * *", "expected exactly 5 fields, found 6"},
		{"61 3 * * *", "61"},
		{"0 0 30 2 *", "never comes"},
		{"TZ=UTC", "a time zone, and no time"},
		{"TZ=Nowhere/Land 0 3 * * *", "bad location Nowhere/Land"},
	} {
		t.Run(row.schedule, func(t *testing.T) {
			t.Parallel()
			env := map[string]string{"AMQP_SERVER_URL": "amqp://127.0.0.1:1/", "FALLBACK_DRAIN_SCHEDULE": row.schedule}
			for _, args := range [][]string{{"serve"}, {"drain"}, {"drain", "--once"}, {"doctor"}} {
				stdout, stderr, code := command(t, env, args...)
				said := ""
				for line := range strings.Lines(stdout + stderr) {
					if _, fault, found := strings.Cut(line, "FALLBACK_DRAIN_SCHEDULE: "); found {
						said += fault
					}
				}
				want := `is neither an interval (1m) nor a cron expression in UTC (0 3 * * *): `
				if code != 1 || !strings.Contains(said, want) || !strings.Contains(said, row.says) || strings.Count(said, "\n") != 1 {
					t.Errorf("%q: got code %d, %q", args, code, stdout+stderr)
				}
			}
		})
	}
	for _, when := range []string{"1m", "1h30m", "0 3 * * *", "*/5 * * * 1-5", "@daily", "@every 1h", "TZ=UTC 0 3 * * *"} {
		c, err := config.Load(func(name string) (string, bool) {
			value, ok := map[string]string{
				"AMQP_SERVER_URL": "amqp://127.0.0.1:1/", "FALLBACK_TARGET_URL": "http://127.0.0.1:1", "FALLBACK_DRAIN_SCHEDULE": when,
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
