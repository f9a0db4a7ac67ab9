// Command fallback is the second door of an API: it takes requests while the API is away and keeps them on a durable
// RabbitMQ queue.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"fallback/functions/config"
	"fallback/functions/operator"
	"fallback/functions/telemetry"

	_ "golang.org/x/crypto/x509roots/fallback" // the image has no roots
)

// Exit codes: 0 is fine, 1 is a failure, 2 is a command line that is not understood.
func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], world{os.Environ(), os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// world is what a command may touch.
type world struct {
	environ        config.Environ
	stdin          io.Reader
	stdout, stderr io.Writer
}

func (w world) lookup(name string) (string, bool) { return w.environ.Lookup(name) }

// operator is one on the queues of the settings.
func (w world) operator() (*operator.Operator, error) {
	c, err := config.Load(w.lookup, "AMQP_SERVER_URL")
	if err != nil {
		return nil, err
	}
	// what goes well, the command says itself
	log := telemetry.Logger(w.stderr, c.LogFormat, max(c.LogLevel, slog.LevelWarn))
	return operator.New(c, log), nil
}

// run is the program, with its world as arguments.
func run(ctx context.Context, args []string, w world) int {
	root := rootCommand(w)
	root.SetArgs(args)
	root.SetOut(w.stdout)
	root.SetErr(w.stderr)
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		fmt.Fprintf(w.stderr, "fallback: %v\nTry: fallback --help\n", err)
		return 2
	default:
		fmt.Fprintf(w.stderr, "fallback: %v\n", err)
		return 1
	}
}

// usageError is the caller's mistake.
type usageError struct{ error }

func rootCommand(w world) *cobra.Command {
	root := &cobra.Command{
		Use:   "fallback",
		Short: "The second door of an API: requests wait on a durable queue until it is back",
		Long: `Fallback takes requests while an API is away (POST /fallback), puts each on a durable RabbitMQ
queue, and answers 202 when the queue has it on disk. Settings come from the environment; see: fallback settings`,
		Example: `  AMQP_SERVER_URL=amqp://user:password@localhost:5672/ fallback serve
  fallback queues`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(serveCommand(w), drainCommand(w), healthCommand(w), queuesCommand(w), peekCommand(w),
		redriveCommand(w), discardCommand(w),
		definitionsCommand(w), settingsCommand(w), doctorCommand(w), primaryCommand(w))
	return root
}

// noArguments is cobra.NoArgs as the caller's mistake.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments, got %q", cmd.CommandPath(), args[0])}
	}
	return nil
}

// printJSON is what --json prints.
func printJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false) // targets have an & in them
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
