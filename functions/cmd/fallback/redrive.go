package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"fallback/functions/config"
	"fallback/functions/drain"
	"fallback/functions/rabbit"
)

func redriveCommand(w world) *cobra.Command {
	var which selection
	var perSecond float64
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "redrive",
		Short: "Put parked requests back on the queue",
		Long: `Redrive takes requests off the parked queue and puts them on the main queue, as new: their attempts count from one
again. Each is taken off when the broker has confirmed that it is on the other queue, so it can be interrupted at any
time. It needs a user that may read the parked queue and publish, such as fallback-drainer.`,
		Example: `  fallback redrive --all
  fallback redrive --all --rate 50
  fallback redrive --id 01a20262-fead-745d-a0dd-93831abf4e21`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := which.check(); err != nil {
				return err
			}
			out, err := settleParked(cmd.Context(), w, which, perSecond, redrive, progress(w.stderr, "redriving"))
			return printOutcome(w.stdout, "redriven", out, err, asJSON)
		},
	}
	which.flags(cmd, "redrive")
	cmd.Flags().Float64Var(&perSecond, "rate", 0, "requests a second, at most; 0 is no limit")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func redrive(ctx context.Context, c config.Config, d *rabbit.Delivery) error {
	return d.Move(ctx, c.Topology.Main, map[string]any{
		drain.HeaderAttempt: nil, drain.HeaderReason: nil, drain.HeaderStatus: nil, drain.HeaderParkedAt: nil,
	})
}

func discardCommand(w world) *cobra.Command {
	var which selection
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "discard",
		Short: "Delete parked requests for good",
		Long: `Discard takes requests off the parked queue and keeps them nowhere. It asks first; where nobody can be asked, it
wants --yes.`,
		Example: `  fallback discard --id 01a20262-fead-745d-a0dd-93831abf4e21
  fallback discard --all --yes`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := which.check(); err != nil {
				return err
			}
			if !yes {
				what := "all parked requests"
				if !which.all {
					what = fmt.Sprintf("%d parked request(s)", len(which.ids))
				}
				if err := confirm(w, "Delete "+what+" for good?"); err != nil {
					return err
				}
			}
			discard := func(_ context.Context, _ config.Config, d *rabbit.Delivery) error { return d.Done() }
			out, err := settleParked(cmd.Context(), w, which, 0, discard, progress(w.stderr, "discarding"))
			return printOutcome(w.stdout, "discarded", out, err, asJSON)
		},
	}
	which.flags(cmd, "discard")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// confirm asks on the terminal.
func confirm(w world, question string) error {
	in, isFile := w.stdin.(*os.File)
	if !isFile || !term.IsTerminal(int(in.Fd())) {
		return usageError{errors.New("nobody can be asked here: say --yes")}
	}
	fmt.Fprintf(w.stderr, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(in).ReadString('\n')
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return errors.New("nothing was deleted")
	}
	return nil
}

// progress draws a bar on a terminal, and nothing elsewhere.
func progress(out io.Writer, what string) func(done, of int) {
	file, isFile := out.(*os.File)
	if !isFile || !term.IsTerminal(int(file.Fd())) {
		return func(int, int) {}
	}
	var bar *progressbar.ProgressBar
	return func(done, of int) {
		if bar == nil {
			bar = progressbar.NewOptions(of, progressbar.OptionSetWriter(out), progressbar.OptionSetDescription(what),
				progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionClearOnFinish())
		}
		_ = bar.Set(min(done, of))
	}
}

// printOutcome says what was done, also when the command failed in the middle.
func printOutcome(out io.Writer, verb string, o outcome, failed error, asJSON bool) error {
	if failed != nil && len(o.Done) == 0 {
		return failed
	}
	var err error
	if asJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		err = enc.Encode(o)
	} else {
		_, err = fmt.Fprintf(out, "%s %d; %d left on %s\n", verb, len(o.Done), o.Left, o.Queue)
	}
	return errors.Join(failed, err)
}
