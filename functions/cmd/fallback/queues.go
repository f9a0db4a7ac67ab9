package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"fallback/functions/operator"
)

func queuesCommand(w world) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "queues",
		Short: "Show how many requests wait on each queue",
		Long: `Queues prints each queue with the messages that are ready and the consumers, as rabbitmqctl
list_queues would, without shell access to the broker.

With RABBITMQ_MANAGEMENT_URL it shows all of them, and of each also the messages that a consumer has in hand
(unacked), and those that publishers put on it (in) and consumers took off it (out) a second. These are up to ten
seconds old; what is ready on the main queue is of this moment. What leaves a retry queue does so by time, and
counts neither there nor as in on the main queue.

Without it, it asks as the user in AMQP_SERVER_URL, and no further than the first queue that this user may not see:
each refusal is an error in the broker's log.`,
		Example: `  fallback queues
  fallback queues --json | jq '.[] | select(.ready > 0)'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := w.operator()
			if err != nil {
				return err
			}
			rows, managementErr, err := o.Queues(cmd.Context())
			if managementErr != nil {
				fmt.Fprintf(w.stderr, "the management API cannot be asked: %v\n", managementErr)
			}
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

// printQueues leaves out the columns that AMQP alone does not fill.
func printQueues(out io.Writer, rows []operator.QueueRow) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	wide := slices.ContainsFunc(rows, func(r operator.QueueRow) bool { return r.QueueStats != nil })
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
		if s := r.QueueStats; s != nil {
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
