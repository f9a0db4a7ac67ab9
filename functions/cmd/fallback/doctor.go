package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"fallback/functions/doctor"
)

func doctorCommand(w world) *cobra.Command {
	var asJSON, look bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at everything that a 202 and the drain rest on, and say what to do",
		Long: `Doctor looks at the settings, the broker, its certificate and version, what the user in
AMQP_SERVER_URL may do, alarms, queues and policies, published passwords, and the primary. Each is a line:

  ok    as it should be
  warn  it works, and somebody should know
  FAIL  requests are refused or lost, or could be
  skip  not looked at, and why

What to do stands behind an arrow. It ends with 1 when something failed, and takes 20 seconds at most. Types of
queues, policies and limits are seen through the management API only (RABBITMQ_MANAGEMENT_URL, a user with the tag
monitoring), whose numbers are up to ten seconds old.

It looks at the settings of where it runs: ask in the server's container for the server, in the drain's for the
drain.

It changes nothing, takes no message off a queue and leaves none. To learn what the user may do, it asks for what
the broker refuses: that is up to four errors in the broker's log. No password is shown.

With --look it takes the first message of the main and of the parked queue, and gives it back at once, which
RabbitMQ counts as a delivery. It tells whether there is one that the broker cannot hand over.`,
		Example: `  fallback doctor
  docker compose exec server /fallback doctor
  docker compose exec drain /fallback doctor
  docker compose exec drain /fallback doctor --look
  fallback doctor --json | jq '.[] | select(.state == "fail")'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings, examine := []doctor.Finding{}, doctor.Examine
			if look {
				examine = doctor.ExamineMessages
			}
			failed := examine(cmd.Context(), w.environ, func(f doctor.Finding) {
				findings = append(findings, f)
				if !asJSON {
					_ = f.Print(w.stdout) // who reads no more wants no more
				}
			})
			if asJSON {
				if err := printJSON(w.stdout, findings); err != nil {
					return err
				}
			}
			if failed > 0 {
				return fmt.Errorf("%d of %d findings are failures", failed, len(findings))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&look, "look", false,
		"take the first message of each queue for a moment, to see whether it can be had")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: check, state (ok, warn, fail, skip), found, advice")
	return cmd
}
