package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"fallback/functions/config"
	"fallback/functions/drain"
	"fallback/functions/rabbit"
)

// peeked is a request as `fallback peek` shows it.
type peeked struct {
	ID         string      `json:"id"`
	Method     string      `json:"method"`
	Target     string      `json:"target"`
	ReceivedAt time.Time   `json:"received_at,omitzero"`
	Attempts   int         `json:"attempts"`
	Reason     string      `json:"reason,omitempty"`
	Status     string      `json:"status,omitempty"`
	Header     http.Header `json:"header,omitempty"`
	Body       string      `json:"body,omitempty"`
	IsBase64   bool        `json:"is_base64_encoded,omitempty"` // the body, where it is no UTF-8: JSON would damage it
	BodyBytes  int         `json:"body_bytes"`
	Error      string      `json:"error,omitempty"`
}

func peekCommand(w world) *cobra.Command {
	var asJSON, bodies bool
	var most int
	cmd := &cobra.Command{
		Use:   "peek [main|parked]",
		Short: "Look at what waits, without taking it",
		Long: `Peek shows the first requests on the main queue, or on the parked one: method, target, age, attempts, and why it is
parked. They go back as they were. Headers and bodies are shown on request; the values of Authorization, Cookie and
the like never are. In JSON, a body that is no UTF-8 is in base64, and "is_base64_encoded" is true. It needs a user that
may read the queue, such as fallback-drainer.`,
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
			rows, err := peek(cmd.Context(), w, len(args) == 1 && args[0] == "parked", most, bodies)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(w.stdout, rows)
			}
			return printPeeked(w.stdout, rows, bodies)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&bodies, "bodies", false, "show headers and bodies, too")
	cmd.Flags().IntVar(&most, "most", 20, fmt.Sprintf("how many, at most; never more than %d", mostInHand))
	return cmd
}

func peek(ctx context.Context, w world, parked bool, most int, bodies bool) ([]peeked, error) {
	source, _, err := openSource(w, func(c config.Config) string {
		if parked {
			return c.Topology.Parked
		}
		return c.Topology.Main
	})
	if err != nil {
		return nil, err
	}
	defer source.Close()
	rows := []peeked{}
	kept, err := each(ctx, source, min(most, mostInHand), func(d *rabbit.Delivery) (bool, bool, error) {
		rows = append(rows, look(d, bodies))
		return false, len(rows) < most, nil
	})
	giveBack(source, kept)
	return rows, err
}

// secretHeaders are never shown: what they hold opens doors.
var secretHeaders = []string{"Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "X-Api-Key", "X-Auth-Token"}

func look(d *rabbit.Delivery, bodies bool) peeked {
	row := peeked{ID: d.ID(), Attempts: d.Attempts(), Reason: d.Header(drain.HeaderReason), Status: d.Header(drain.HeaderStatus)}
	r, err := d.Request()
	if err != nil {
		row.Error = err.Error()
		return row
	}
	row.Method, row.Target, row.ReceivedAt, row.BodyBytes = r.Method, r.Target, r.ReceivedAt, len(r.Body)
	if !bodies {
		return row
	}
	row.Header = r.Header.Clone()
	for name := range row.Header {
		if slices.Contains(secretHeaders, http.CanonicalHeaderKey(name)) { // another program may write it in small letters
			row.Header[name] = []string{"(hidden)"}
		}
	}
	row.setBody(r.Body)
	return row
}

func (p *peeked) setBody(body []byte) {
	if p.Body = string(body); !utf8.Valid(body) {
		p.Body, p.IsBase64 = base64.StdEncoding.EncodeToString(body), true
	}
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

func printPeeked(out io.Writer, rows []peeked, bodies bool) error {
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
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%s\n", oneLine(r.ID), oneLine(r.Method), oneLine(r.Target), age, r.Attempts, r.BodyBytes, oneLine(reason))
	}
	if err := t.Flush(); err != nil || !bodies {
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
