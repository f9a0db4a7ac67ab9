package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"fallback/functions/app"
	"fallback/functions/config"
	"fallback/functions/httpapi"
	"fallback/functions/metrics"
	"fallback/functions/telemetry"
)

func serveCommand(w world) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Take requests over HTTP and put them on the queue",
		Long: `Serve takes requests at POST /fallback and below (PUT, PATCH and DELETE too) and puts each on the
queue. It answers 202 when the broker has the request on disk, and 503 when it cannot say so.

/livez says that the process runs, /readyz that the broker would take a request, and /metrics what was answered, in
the text format of Prometheus. SIGTERM ends it in order: no new connections, the requests in hand, the connection to
the broker; within 10 seconds.`,
		Example: `  AMQP_SERVER_URL=amqp://user:password@localhost:5672/ fallback serve
  FALLBACK_ADDR=127.0.0.1:9000 FALLBACK_PATH_PREFIX=/ fallback serve`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := w.environ.Load("AMQP_SERVER_URL")
			if err != nil {
				return err
			}
			log := telemetry.Logger(w.stderr, c.LogFormat, c.LogLevel)
			c.TellStrays(log)
			server, err := app.NewServer(c, log, metrics.NewServer(c))
			if err != nil {
				return err
			}
			calmGC()
			return server.Run(cmd.Context())
		},
	}
}

func healthCommand(w world) *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a running server whether it is ready (for container health checks)",
		Long: `Health asks /readyz of the server at FALLBACK_ADDR and ends with 0 if it is ready and 1 if not. The
image has no shell and no curl; this is its health check.`,
		Example: `  fallback health
  fallback health --addr 127.0.0.1:9000`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if address == "" {
				c, err := config.Load(w.lookup)
				if err != nil {
					return err
				}
				address = c.Addr
			}
			return health(cmd.Context(), w, address)
		},
	}
	cmd.Flags().StringVar(&address, "addr", "", "host:port of the server (default FALLBACK_ADDR)")
	return cmd
}

func health(ctx context.Context, w world, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 6*time.Second)
	defer cancel()
	response, err := httpapi.Ask(ctx, address, "/readyz")
	switch {
	case errors.Is(err, httpapi.ErrAddress):
		return usageError{fmt.Errorf("address %q is not host:port", address)}
	case err != nil:
		return fmt.Errorf("not healthy: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", readDetail(response.Body))
	}
	fmt.Fprintln(w.stdout, "ready")
	return nil
}

// readDetail is the detail of a problem answer, bounded.
func readDetail(r io.Reader) string {
	var answer struct{ Detail string }
	if err := json.NewDecoder(io.LimitReader(r, 64<<10)).Decode(&answer); err != nil || answer.Detail == "" {
		return "the answer was not understood"
	}
	return answer.Detail
}
