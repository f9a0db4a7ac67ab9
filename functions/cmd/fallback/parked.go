package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"fallback/functions/operator"
)

// selection is which parked requests a command is about.
type selection operator.Selection

func (s *selection) flags(cmd *cobra.Command, verb string) {
	cmd.Flags().StringSliceVar(&s.IDs, "id", nil, verb+" the request with this id; may be given more than once")
	cmd.Flags().BoolVar(&s.All, "all", false, verb+" all of them")
}

func (s *selection) check() error {
	if s.All == (len(s.IDs) > 0) {
		return usageError{errors.New("say which: --id ID, or --all")}
	}
	return nil
}

func redriveCommand(w world) *cobra.Command {
	var which selection
	var perSecond float64
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "redrive",
		Short: "Put parked requests back on the queue",
		Long: `Redrive takes requests off the parked queue and puts them on the main queue, as new: their attempts
count from one again, and for FALLBACK_MAX_AGE they are as old as this redrive. Each is taken off when the broker
has confirmed that it is on the other queue, so it can be interrupted at any time. It needs a user that may read the
parked queue and publish, such as fallback-drainer.`,
		Example: `  fallback redrive --all
  fallback redrive --all --rate 50
  fallback redrive --id 01a20262-fead-745d-a0dd-93831abf4e21`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := which.check(); err != nil {
				return err
			}
			if !(perSecond >= 0) { // NaN is neither
				return usageError{errors.New("--rate: want 0, which is no limit, or more")}
			}
			o, err := w.operator()
			if err != nil {
				return err
			}
			show, end := progress(w.stderr, "redriving")
			out, err := o.Redrive(cmd.Context(), operator.Selection(which), perSecond, show)
			end()
			return printOutcome(w.stdout, "redriven", out, err, asJSON)
		},
	}
	which.flags(cmd, "redrive")
	cmd.Flags().Float64Var(&perSecond, "rate", 0, "requests a second, at most; 0 is no limit")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func discardCommand(w world) *cobra.Command {
	var which selection
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "discard",
		Short: "Delete parked requests for good",
		Long: `Discard takes requests off the parked queue and keeps them nowhere. It asks first; where nobody can
be asked, it wants --yes. It needs a user that may read the parked queue, such as fallback-drainer.`,
		Example: `  fallback discard --id 01a20262-fead-745d-a0dd-93831abf4e21
  fallback discard --all --yes`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := which.check(); err != nil {
				return err
			}
			if !yes {
				what := "all parked requests"
				if !which.All {
					what = fmt.Sprintf("%d parked request(s)", len(which.IDs))
				}
				if err := confirm(cmd.Context(), w, "Delete "+what+" for good?"); err != nil {
					return err
				}
			}
			o, err := w.operator()
			if err != nil {
				return err
			}
			show, end := progress(w.stderr, "discarding")
			out, err := o.Discard(cmd.Context(), operator.Selection(which), show)
			end()
			return printOutcome(w.stdout, "discarded", out, err, asJSON)
		},
	}
	which.flags(cmd, "discard")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// confirm asks on the terminal, until ctx ends.
func confirm(ctx context.Context, w world, question string) error {
	in, isFile := w.stdin.(*os.File)
	if !isFile || !term.IsTerminal(int(in.Fd())) {
		return usageError{errors.New("nobody can be asked here: say --yes")}
	}
	fmt.Fprintf(w.stderr, "%s [y/N] ", question)
	answers := make(chan string, 1)
	go func() {
		answer, _ := bufio.NewReader(in).ReadString('\n')
		answers <- answer
	}()
	select {
	case answer := <-answers:
		if answer = strings.ToLower(strings.TrimSpace(answer)); answer == "y" || answer == "yes" {
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(w.stderr)
	}
	return errors.New("nothing was deleted")
}

// progress draws a bar on a terminal, and nothing elsewhere. It stays, and end leaves its line, wherever it has come
// to.
func progress(out io.Writer, what string) (show func(done, of int), end func()) {
	file, isFile := out.(*os.File)
	if !isFile || !term.IsTerminal(int(file.Fd())) {
		return func(int, int) {}, func() {}
	}
	var bar *progressbar.ProgressBar
	show = func(done, of int) {
		if bar == nil {
			bar = progressbar.NewOptions(of, progressbar.OptionSetWriter(out), progressbar.OptionSetDescription(what),
				progressbar.OptionShowCount(), progressbar.OptionShowIts(),
				// with large counts and long times, the line is to fit into 80 columns still
				progressbar.OptionSetWidth(10))
		}
		_ = bar.Set(min(done, of))
	}
	end = func() {
		if bar != nil {
			fmt.Fprintln(out)
		}
	}
	return show, end
}

// printOutcome says what was done, also when the command failed in the middle.
func printOutcome(out io.Writer, verb string, o operator.Outcome, failed error, asJSON bool) error {
	if failed != nil && len(o.Done) == 0 {
		return failed
	}
	var err error
	if asJSON {
		err = printJSON(out, o)
	} else {
		left := fmt.Sprint(o.Left)
		if o.Left < 0 {
			left = "an unknown number"
		}
		_, err = fmt.Fprintf(out, "%s %d; %s left on %s\n", verb, len(o.Done), left, o.Queue)
	}
	return errors.Join(failed, err)
}
