package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"fallback/functions/app"
	"fallback/functions/config"
	"fallback/functions/drain"
	"fallback/functions/telemetry"
	"fallback/functions/worker"
)

func drainCommand(w world) *cobra.Command {
	var once, asJSON bool
	var budget drain.Budget
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Replay what waits on the queue to the primary",
		Long: `Drain takes requests off the queue and sends them to the primary (FALLBACK_TARGET_URL) as they came:
at first one at a time, more while its answers are good. While the primary is down, nothing is taken. What it will
not take is parked with the reason.

It runs by FALLBACK_DRAIN_SCHEDULE until it is ended; runs never overlap, and several workers may share the queue.
Without FALLBACK_TARGET_URL it idles. With --once it runs once, until the queue is empty or the budget used up,
prints a report and ends with 0 if nothing is left waiting, 1 if something is: on the queue or, of what this run has
sent, for another attempt. It needs a user that may read the queues and publish, such as fallback-drainer.`,
		Example: `  FALLBACK_TARGET_URL=https://api.example.com fallback drain
  FALLBACK_TARGET_URL=https://api.example.com FALLBACK_DRAIN_SCHEDULE='0 3 * * *' fallback drain
  FALLBACK_TARGET_URL=https://api.example.com fallback drain --once --for 5m --requests 1000`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if budget.Time < 0 || budget.Requests < 0 {
				return usageError{errors.New("--for, --requests: want 0, which is no limit, or more")}
			}
			c, err := w.environ.Load("AMQP_SERVER_URL")
			if err != nil {
				return err
			}
			log := telemetry.Logger(w.stderr, c.LogFormat, c.LogLevel)
			c.TellStrays(log)
			calmGC()
			switch {
			case once && c.TargetURL == "": // told after the names that are no settings: it may be one of them
				return fmt.Errorf("FALLBACK_TARGET_URL: not set; for example %s", config.Example("FALLBACK_TARGET_URL"))
			case !once:
				return worker.Run(cmd.Context(), c, log)
			}
			d, err := app.NewDrain(c, log, nil)
			if err != nil {
				return err
			}
			defer d.Close()
			report := d.Once(cmd.Context(), budget)
			if asJSON {
				err = printJSON(w.stdout, report)
			} else {
				err = printReport(w.stdout, report)
			}
			if err != nil {
				return err
			}
			switch {
			case report.Waiting != 0:
				return fmt.Errorf("not everything was drained: %s", report.End)
			case report.Retrying != 0:
				return fmt.Errorf("not everything was drained: %d wait on the retry queues for 10 seconds to 10 "+
					"minutes; run it again then", report.Retrying)
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

func printReport(out io.Writer, r drain.Report) error {
	_, err := fmt.Fprintf(out,
		"delivered %d  retried %d  set aside %d  parked %d  expired %d  returned %d  held %d  in %.1f s: %s\n",
		r.Delivered, r.Retried, r.Aside, r.Parked, r.Expired, r.Returned, r.Held, r.Seconds, r.End)
	if err == nil && r.LastError != "" {
		_, err = fmt.Fprintf(out, "the last error: %s\n", r.LastError)
	}
	return err
}
