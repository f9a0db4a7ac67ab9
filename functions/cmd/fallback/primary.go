package main

import (
	"strings"

	"github.com/spf13/cobra"

	"fallback/functions/config"
	"fallback/functions/standin"
	"fallback/functions/telemetry"
)

func primaryCommand(w world) *cobra.Command {
	var address, mode string
	cmd := &cobra.Command{
		Use:   "primary",
		Short: "A small API for trying things out (not for production)",
		Long: `Primary stands in for your API where things are tried out: it answers every request, logs it, and
keeps the last 100 in memory. It is not for production: it asks for no password, and keeps nothing on disk. Told by
PUT /_primary/mode, it is

  ` + strings.ReplaceAll(standin.Modes(), "\n", "\n  ") + `

GET /_primary/requests shows what has arrived. GET /readyz is for its own health check, whatever the mode.`,
		Example: `  fallback primary --mode down
  curl -X PUT -d up http://127.0.0.1:8090/_primary/mode
  curl http://127.0.0.1:8090/_primary/requests`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(w.lookup)
			if err != nil {
				return err
			}
			api := standin.New(telemetry.Logger(w.stderr, c.LogFormat, c.LogLevel))
			if err := api.Be(mode); err != nil {
				return usageError{err}
			}
			return api.Run(cmd.Context(), address)
		},
	}
	cmd.Flags().StringVar(&address, "addr", ":8090", "host:port to listen at")
	cmd.Flags().StringVar(&mode, "mode", "up", "how to be at first")
	return cmd
}
