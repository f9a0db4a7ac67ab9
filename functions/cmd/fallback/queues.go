package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"fallback/functions/config"
	"fallback/functions/rabbit"
)

// queueRow is a line of `fallback queues`, and its --json form.
type queueRow struct {
	Queue     string `json:"queue"`
	Ready     int    `json:"ready"`
	Consumers int    `json:"consumers"`
	Error     string `json:"error,omitempty"`
}

func queuesCommand(w world) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "queues",
		Short: "Show how many requests wait on each queue",
		Long: `Queues prints each queue with the messages that are ready and the consumers, as rabbitmqctl list_queues would,
without shell access to the broker. It asks as the user in AMQP_SERVER_URL, and no further than the first queue that
this user may not see: each refusal is an error in the broker's log. The counts are those of this moment.`,
		Example: `  fallback queues
  fallback queues --json | jq '.[] | select(.ready > 0)'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(w.lookup, "AMQP_SERVER_URL")
			if err != nil {
				return err
			}
			counts, err := rabbit.Count(cmd.Context(), c.AMQPServerURL.Reveal(), c.Topology.Queues())
			if err != nil {
				return err
			}
			rows := make([]queueRow, len(counts))
			for i, q := range counts {
				rows[i] = queueRow{q.Queue, q.Ready, q.Consumers, reason(q.Err)}
			}
			if asJSON {
				enc := json.NewEncoder(w.stdout)
				enc.SetIndent("", "  ")
				return enc.Encode(rows)
			}
			return printQueues(w.stdout, rows)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
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

func printQueues(out io.Writer, rows []queueRow) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "QUEUE\tREADY\tCONSUMERS")
	for _, r := range rows {
		if r.Error != "" {
			fmt.Fprintf(t, "%s\t-\t-\t%s\n", r.Queue, r.Error)
			continue
		}
		fmt.Fprintf(t, "%s\t%d\t%d\n", r.Queue, r.Ready, r.Consumers)
	}
	return t.Flush()
}
