package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/spf13/cobra"

	"fallback/functions/app"
	"fallback/functions/config"
	"fallback/functions/drain"
	"fallback/functions/telemetry"
)

func drainCommand(w world) *cobra.Command {
	var once, asJSON bool
	var budget drain.Budget
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Replay what waits on the queue to the primary",
		Long: `Drain takes requests off the queue and sends them to the primary (FALLBACK_TARGET_URL) as they came: at first one at a
time, more while its answers are good. While the primary is down, nothing is taken. What it will not take is parked
with the reason.

It runs by FALLBACK_DRAIN_SCHEDULE until it is ended; runs never overlap, and several workers may share the queue.
With --once it runs once, until the queue is empty or the budget used up, prints a report and ends with 0 if nothing is
left waiting, 1 if something is.`,
		Example: `  FALLBACK_TARGET_URL=https://api.example.com fallback drain
  FALLBACK_DRAIN_SCHEDULE='0 3 * * *' fallback drain
  fallback drain --once --for 5m --requests 1000`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(w.lookup, "AMQP_SERVER_URL")
			if err != nil {
				return err
			}
			log := telemetry.Logger(w.stderr, c.LogFormat, c.LogLevel)
			switch {
			case once && c.TargetURL == "":
				return fmt.Errorf("FALLBACK_TARGET_URL: not set; for example https://api.example.com")
			case c.TargetURL == "":
				log.Info("the drain idles: FALLBACK_TARGET_URL is not set")
				return withHealth(cmd.Context(), c.DrainAddr, func() error { return nil }, func(ctx context.Context) error {
					<-ctx.Done()
					return nil
				})
			}
			d, err := app.NewDrain(c, log)
			if err != nil {
				return err
			}
			if !once {
				return withHealth(cmd.Context(), c.DrainAddr, d.Ready, func(ctx context.Context) error {
					return schedule(ctx, c, d, log)
				})
			}
			defer d.Close()
			report := d.Once(cmd.Context(), budget)
			if err := printReport(w.stdout, report, asJSON); err != nil {
				return err
			}
			if report.Waiting != 0 {
				return fmt.Errorf("not everything was drained: %s", report.End)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "run once, now, and end")
	cmd.Flags().DurationVar(&budget.Time, "for", time.Minute, "with --once: how long it may take; 0 is no limit")
	cmd.Flags().IntVar(&budget.Requests, "requests", 0, "with --once: how many it may replay; 0 is no limit")
	cmd.Flags().BoolVar(&asJSON, "json", false, "with --once: print the report as JSON")
	return cmd
}

// withHealth runs work, and says meanwhile at the address that it lives, and whether it is ready. When the address cannot
// be had, nothing is run.
func withHealth(ctx context.Context, address string, ready func() error, work func(context.Context) error) error {
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
	server := &http.Server{Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	return work(ctx)
}

// schedule drains by the schedule until ctx ends. A run that is due while the last one goes on is left out.
func schedule(ctx context.Context, c config.Config, d *app.Drain, log *slog.Logger) error {
	scheduler, err := gocron.NewScheduler(gocron.WithLocation(time.UTC))
	if err != nil {
		return err
	}
	var running sync.Mutex
	when, options := gocron.CronJob(c.Schedule, false), []gocron.JobOption{gocron.WithSingletonMode(gocron.LimitModeReschedule)}
	if every, err := time.ParseDuration(c.Schedule); err == nil && every > 0 {
		when, options = gocron.DurationJob(every), append(options, gocron.WithStartAt(gocron.WithStartImmediately()))
	}
	_, err = scheduler.NewJob(when, gocron.NewTask(func() {
		running.Lock()
		defer running.Unlock()
		report := d.Once(ctx, drain.Budget{Time: c.Window})
		if report != (drain.Report{End: report.End, Seconds: report.Seconds}) {
			log.Info("drained", "report", report)
		}
	}), options...)
	if err != nil {
		return fmt.Errorf("FALLBACK_DRAIN_SCHEDULE: %q is neither an interval (1m) nor a cron expression (0 3 * * *): %w", c.Schedule, err)
	}
	log.Info("draining", "schedule", c.Schedule, "queue", c.Queue)
	scheduler.Start()
	<-ctx.Done()
	running.Lock() // the run that is under way sends nothing new, and finishes what it has in flight; that is bounded
	defer running.Unlock()
	d.Close()
	return scheduler.Shutdown()
}

func printReport(out io.Writer, r drain.Report, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	_, err := fmt.Fprintf(out, "delivered %d  retried %d  parked %d  expired %d  returned %d  held %d  in %.1f s: %s\n",
		r.Delivered, r.Retried, r.Parked, r.Expired, r.Returned, r.Held, r.Seconds, r.End)
	if err == nil && r.Trouble != "" {
		_, err = fmt.Fprintf(out, "the last trouble: %s\n", r.Trouble)
	}
	return err
}
