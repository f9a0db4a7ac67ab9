// Package worker is the drain on a schedule, with its health: settings in, runs until it is ended. It stands outside
// of app, so that no function links a scheduler.
package worker

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-co-op/gocron/v2"

	"fallback/functions/app"
	"fallback/functions/config"
	"fallback/functions/drain"
	"fallback/functions/metrics"
)

// Run drains by the schedule until ctx ends, or idles where no target is set, and answers at the worker's address
// meanwhile. The error is of the settings, of the address, or that the last run did not end in time.
func Run(ctx context.Context, c config.Config, log *slog.Logger) error {
	m, err := metrics.NewWorker(c, log)
	if err != nil {
		return err
	}
	if c.TargetURL == "" {
		log.Info("the drain idles: FALLBACK_TARGET_URL is not set")
		return health{c.DrainAddr, log, m, func() error { return nil }}.while(ctx, func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		})
	}
	d, err := app.NewDrain(c, log, m)
	if err != nil {
		return err
	}
	return health{c.DrainAddr, log, m, d.Ready}.while(ctx,
		func(ctx context.Context) error { return schedule(ctx, c, d, log) })
}

// schedule drains by the schedule until ctx ends. A run that is due while the last one goes on is left out.
func schedule(ctx context.Context, c config.Config, d *app.Drain, log *slog.Logger) error {
	// Its end waits for the run that is under way, which sends nothing new then and is bounded.
	scheduler, err := gocron.NewScheduler(gocron.WithLocation(time.UTC), gocron.WithStopTimeout(drain.Grace))
	if err != nil {
		return err
	}
	when, options := gocron.CronJob(c.Schedule, false),
		[]gocron.JobOption{gocron.WithSingletonMode(gocron.LimitModeReschedule)}
	if every, err := time.ParseDuration(c.Schedule); err == nil {
		when, options = gocron.DurationJob(every), append(options, gocron.WithStartAt(gocron.WithStartImmediately()))
	}
	_, err = scheduler.NewJob(when, gocron.NewTask(func() {
		report := d.Once(ctx, drain.Budget{Time: c.Window})
		// if anything was done, waits or went wrong
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
