package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"fallback/functions/operator"
)

func peekCommand(w world) *cobra.Command {
	var asJSON, bodies bool
	var most int
	cmd := &cobra.Command{
		Use:   "peek [main|parked]",
		Short: "Look at what waits, without taking it",
		Long: `Peek shows the first requests on the main queue, or on the parked one: method, target, age,
attempts, and why it is parked. They go back as they were. Headers and bodies are shown on request; the values of
Authorization, Cookie and the like never are. In JSON, a body that is no UTF-8 is in base64, and "is_base64_encoded"
is true. It needs a user that may read the queue, such as fallback-drainer.`,
		Example: `  fallback peek
  fallback peek parked --bodies
  fallback peek parked --json --most 1000 | jq '.[].reason'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && args[0] != "main" && args[0] != "parked" {
				return usageError{fmt.Errorf("want main or parked, got %q", args)}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if most < 1 {
				return usageError{errors.New("--most: want 1 or more")}
			}
			o, err := w.operator()
			if err != nil {
				return err
			}
			peek, detail := o.PeekMain, operator.Brief
			if len(args) == 1 && args[0] == "parked" {
				peek = o.PeekParked
			}
			if bodies {
				detail = operator.Full
			}
			rows, err := peek(cmd.Context(), most, detail)
			switch {
			case err != nil && len(rows) == 0:
				return err
			case asJSON:
				return errors.Join(err, printJSON(w.stdout, rows))
			default:
				return errors.Join(err, printPeeked(w.stdout, rows, detail))
			}
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&bodies, "bodies", false, "show headers and bodies, too")
	cmd.Flags().IntVar(&most, "most", 20, fmt.Sprintf("how many, at most; never more than %d", operator.MostUnacked))
	return cmd
}

// forTerminal is text in which nothing moves the cursor or changes colours: clients choose what is in it.
func forTerminal(s string) string {
	return strings.Map(func(c rune) rune {
		if c == '\n' || c == '\t' || unicode.IsPrint(c) {
			return c
		}
		return '\uFFFD'
	}, s)
}

// oneLine is forTerminal without line ends and tabs, which would forge rows.
func oneLine(s string) string {
	return strings.NewReplacer("\n", " ", "\t", " ").Replace(forTerminal(s))
}

func printPeeked(out io.Writer, rows []operator.Peeked, detail operator.Detail) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(out, "nothing waits")
		return err
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tMETHOD\tTARGET\tAGE\tATTEMPTS\tBYTES\tREASON")
	for _, r := range rows {
		age, reason := "-", r.Reason
		if !r.ReceivedAt.IsZero() {
			age = time.Since(r.ReceivedAt).Round(time.Second).String()
		}
		if r.Error != "" {
			reason = r.Error
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%s\n", oneLine(r.ID), oneLine(r.Method), oneLine(r.Target), age,
			r.Attempts, r.BodyBytes, oneLine(reason))
	}
	if err := t.Flush(); err != nil || detail == operator.Brief {
		return err
	}
	for _, r := range rows {
		fmt.Fprintf(out, "\n%s\n", oneLine(r.ID))
		for name, values := range r.Header {
			for _, v := range values {
				fmt.Fprintf(out, "  %s: %s\n", oneLine(name), oneLine(v))
			}
		}
		if r.IsBase64 {
			r.Body = fmt.Sprintf("(%d bytes that are no text; --json shows them in base64)", r.BodyBytes)
		}
		fmt.Fprintf(out, "\n%s\n", forTerminal(r.Body))
	}
	return nil
}
