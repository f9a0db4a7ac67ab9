package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"fallback/functions/config"
)

func settingsCommand(w world) *cobra.Command {
	var markdown bool
	cmd := &cobra.Command{
		Use:   "settings",
		Short: "List every setting with its default",
		Example: `  fallback settings
  fallback settings --markdown`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			if markdown {
				_, err := fmt.Fprint(w.stdout, config.Markdown())
				return err
			}
			t := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "VARIABLE\tKIND\tDEFAULT\tWHAT IT IS")
			for _, s := range config.Settings() {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", s.Name, s.Kind, s.Default, s.About)
			}
			return t.Flush()
		},
	}
	cmd.Flags().BoolVar(&markdown, "markdown", false, "print the table of the README")
	return cmd
}
