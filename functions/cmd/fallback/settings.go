package main

import (
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"fallback/functions/config"
)

func settingsCommand(w world) *cobra.Command {
	var markdown, unknown bool
	cmd := &cobra.Command{
		Use:   "settings",
		Short: "List every setting with its default",
		Long: `Settings lists every setting with its default.

With --unknown it tells which of the names that it is given look like settings and are none, each with the nearest
name, and ends with 1 when one of them is nearly FALLBACK_TOKENS or FALLBACK_WEBHOOK_SECRETS: whoever means one of
these and writes another opens the door to everyone. serve, drain and the functions look at the names of their own
environment so.`,
		Example: `  fallback settings
  fallback settings --markdown
  fallback settings --unknown FALLBACK_TOKEN FALLBACK_TARGET`,
		Args: func(cmd *cobra.Command, args []string) error {
			if unknown {
				return nil
			}
			return noArguments(cmd, args)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case unknown:
				return tellUnknown(w, args)
			case markdown:
				_, err := fmt.Fprint(w.stdout, config.Markdown())
				return err
			}
			t := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "VARIABLE\tUNIT\tDEFAULT\tWHAT IT IS")
			for _, s := range config.Settings() {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", s.Name, s.Unit, s.Default, s.About)
			}
			return t.Flush()
		},
	}
	cmd.Flags().BoolVar(&markdown, "markdown", false, "print the table of the README")
	cmd.Flags().BoolVar(&unknown, "unknown", false, "tell which of the names that follow are no settings")
	return cmd
}

func tellUnknown(w world, names []string) error {
	open := false
	for _, stray := range config.Strays(names) {
		fmt.Fprintln(w.stdout, stray)
		open = open || stray.Guard
	}
	if open {
		return errors.New("the door would be open to everyone")
	}
	return nil
}
