package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"fallback/functions/config"
	"fallback/functions/rabbit"
)

// queueRow is a line of `fallback queues`, and its --json form.
type queueRow struct {
	Queue     string `json:"queue"`
	Ready     int    `json:"ready"`
	Consumers int    `json:"consumers"`
	*queueStats
	Error string `json:"error,omitempty"`
}

// queueStats is what AMQP does not tell, from the management API; it is nil where that does not either.
type queueStats struct {
	Type    string  `json:"type"`
	State   string  `json:"state"`
	Unacked int     `json:"unacked"`
	In      float64 `json:"in_per_second"`
	Out     float64 `json:"out_per_second"`
}

func queuesCommand(w world) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "queues",
		Short: "Show how many requests wait on each queue",
		Long: `Queues prints each queue with the messages that are ready and the consumers, as rabbitmqctl list_queues would,
without shell access to the broker.

With RABBITMQ_MANAGEMENT_URL it shows all of them, and of each also the messages that a consumer has in hand (unacked),
and those that publishers put on it (in) and consumers took off it (out) a second. These are up to ten seconds old; what
is ready on the main queue is of this moment. What leaves a retry queue does so by time, and counts neither there nor as
in on the main queue.

Without it, it asks as the user in AMQP_SERVER_URL, and no further than the first queue that this user may not see:
each refusal is an error in the broker's log.`,
		Example: `  fallback queues
  fallback queues --json | jq '.[] | select(.ready > 0)'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(w.lookup, "AMQP_SERVER_URL")
			if err != nil {
				return err
			}
			rows, err := queueRows(cmd.Context(), c, w.stderr)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(w.stdout, rows)
			}
			return printQueues(w.stdout, rows)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// queueRows asks the management API, if there is one, and AMQP for the rest.
func queueRows(ctx context.Context, c config.Config, notes io.Writer) ([]queueRow, error) {
	names := c.Topology.Queues()
	rows, err := managementRows(ctx, c, names)
	if err != nil {
		fmt.Fprintf(notes, "the management API cannot be asked: %v\n", err)
	}
	ask := names
	if rows == nil {
		rows = make([]queueRow, len(names))
	} else {
		ask = names[:1] // of this moment, where the statistics are seconds old
	}
	counts, err := rabbit.Count(ctx, c.AMQPServerURL.Reveal(), ask)
	if err != nil {
		return nil, err
	}
	for i, q := range counts {
		if row := &rows[i]; q.Err == nil || row.Queue == "" {
			*row = queueRow{q.Queue, q.Ready, q.Consumers, row.queueStats, reason(q.Err)}
		}
	}
	return rows, nil
}

// managementRows is nil without RABBITMQ_MANAGEMENT_URL.
func managementRows(ctx context.Context, c config.Config, names []string) ([]queueRow, error) {
	if c.ManagementURL == "" {
		return nil, nil
	}
	management, err := rabbit.NewManagement(c.ManagementURL.Reveal())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	all, err := management.Queues(ctx, c.VHost, names)
	if err != nil {
		return nil, err
	}
	rows := make([]queueRow, len(all))
	for i, q := range all {
		rows[i] = queueRow{Queue: q.Queue, Ready: q.Ready, Consumers: q.Consumers, Error: reason(q.Err)}
		if q.Err == nil {
			rows[i].queueStats = &queueStats{q.Type, q.State, q.Unacked, q.Published, q.Acked}
		}
	}
	return rows, nil
}

func reason(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, rabbit.ErrUnroutable):
		return "does not exist"
	case errors.Is(err, rabbit.ErrNotAllowed):
		return "not visible to this user"
	case errors.Is(err, rabbit.ErrNotAsked):
		return "not asked"
	default:
		return err.Error()
	}
}

// printQueues leaves out the columns that AMQP alone does not fill.
func printQueues(out io.Writer, rows []queueRow) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	wide := slices.ContainsFunc(rows, func(r queueRow) bool { return r.queueStats != nil })
	if wide {
		fmt.Fprintln(t, "QUEUE\tREADY\tUNACKED\tCONSUMERS\tIN/S\tOUT/S")
	} else {
		fmt.Fprintln(t, "QUEUE\tREADY\tCONSUMERS")
	}
	for _, r := range rows {
		ready, unacked, consumers, in, out, note := fmt.Sprint(r.Ready), "-", fmt.Sprint(r.Consumers), "-", "-", r.Error
		if r.Error != "" {
			ready, consumers = "-", "-"
		}
		if s := r.queueStats; s != nil {
			unacked, in, out = fmt.Sprint(s.Unacked), fmt.Sprintf("%.1f", s.In), fmt.Sprintf("%.1f", s.Out)
			if s.State != "running" {
				note = s.State
			}
		}
		cells := []string{r.Queue, ready, consumers}
		if wide {
			cells = []string{r.Queue, ready, unacked, consumers, in, out}
		}
		if note != "" {
			cells = append(cells, note)
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	return t.Flush()
}
