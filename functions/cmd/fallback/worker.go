package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/go-co-op/gocron/v2"

	"fallback/functions/app"
	"fallback/functions/config"
	"fallback/functions/drain"
	"fallback/functions/httpapi"
	"fallback/functions/metrics"
)

// runWorker is `fallback drain` without --once: it drains by the schedule until ctx ends, or idles when there is no target.
func runWorker(ctx context.Context, c config.Config, log *slog.Logger) error {
	m, err := metrics.NewWorker(c, log)
	if err != nil {
		return err
	}
	if c.TargetURL == "" {
		log.Info("the drain idles: FALLBACK_TARGET_URL is not set")
		return withHealth(ctx, c.DrainAddr, log, m, func() error { return nil }, func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		})
	}
	d, err := app.NewDrain(c, log, m)
	if err != nil {
		return err
	}
	return withHealth(ctx, c.DrainAddr, log, m, d.Ready, func(ctx context.Context) error { return schedule(ctx, c, d, log) })
}

// withHealth runs work, and says meanwhile at the address that it lives, whether it is ready, and what it has done. When
// the address cannot be had, nothing is run.
func withHealth(ctx context.Context, address string, log *slog.Logger, m http.Handler, ready func() error, work func(context.Context) error) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("FALLBACK_DRAIN_ADDR: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(w).Encode(map[string]any{
				"type": "urn:fallback:problem:broker-unavailable", "title": "Service Unavailable", "status": 503,
				"detail": "The worker cannot reach the queue; its log says why.",
			})
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.Handle("GET /metrics", m)
	server := httpapi.NewHealth(mux, log)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(context.WithoutCancel(ctx), listener) })
	defer serving.Wait()
	defer server.Close()
	return work(ctx)
}

// schedule drains by the schedule until ctx ends. A run that is due while the last one goes on is left out.
func schedule(ctx context.Context, c config.Config, d *app.Drain, log *slog.Logger) error {
	// Its end waits for the run that is under way, which sends nothing new then and is bounded.
	scheduler, err := gocron.NewScheduler(gocron.WithLocation(time.UTC), gocron.WithStopTimeout(drain.Grace))
	if err != nil {
		return err
	}
	when, options := gocron.CronJob(c.Schedule, false), []gocron.JobOption{gocron.WithSingletonMode(gocron.LimitModeReschedule)}
	if every, err := time.ParseDuration(c.Schedule); err == nil && every > 0 {
		when, options = gocron.DurationJob(every), append(options, gocron.WithStartAt(gocron.WithStartImmediately()))
	}
	_, err = scheduler.NewJob(when, gocron.NewTask(func() {
		report := d.Once(ctx, drain.Budget{Time: c.Window})
		if report != (drain.Report{End: report.End, Seconds: report.Seconds}) {
			log.Info("drained", "report", report)
		}
	}), options...)
	if err != nil {
		return fmt.Errorf("FALLBACK_DRAIN_SCHEDULE: %w", err)
	}
	log.Info("draining", "schedule", c.Schedule, "queue", c.Queue)
	scheduler.Start()
	<-ctx.Done()
	defer d.Close()
	return scheduler.Shutdown()
}
