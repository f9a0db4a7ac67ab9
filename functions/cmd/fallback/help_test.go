package main

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// before is what an example may set or go through before our program; after is what it may do with what that prints.
var before, after = regexp.MustCompile(`^(\w+=('[^']*'|\S+) )*(docker compose exec \w+ /)?fallback `),
	regexp.MustCompile(` (\||>|&&) .*$`)

// TestHelp holds that every command has help that fits a window, with examples whose commands and flags there are.
func TestHelp(t *testing.T) {
	t.Parallel()
	root := rootCommand(world{})
	for _, c := range append(root.Commands(), root) {
		stdout, stderr, code := command(t, nil, append(strings.Fields(c.CommandPath())[1:], "--help")...)
		if code != 0 || stderr != "" || c.Example == "" {
			t.Errorf("%s: got code %d, %q, examples %q", c.CommandPath(), code, stderr, c.Example)
		}
		for line := range strings.Lines(stdout) {
			if utf8.RuneCountInString(line) > 125 {
				t.Errorf("%s: too long for a window: %s", c.CommandPath(), line)
			}
		}
		for line := range strings.Lines(c.Example) {
			example := strings.TrimSpace(line)
			if strings.HasPrefix(example, "curl ") {
				continue
			}
			ours := before.ReplaceAllString(example, "")
			args := strings.Fields(after.ReplaceAllString(ours, ""))
			meant, rest, err := root.Find(args)
			if ours == example || err != nil || meant != c && c != root {
				t.Errorf("%s: the example %q is of another command: %v", c.CommandPath(), example, err)
				continue
			}
			if err := meant.ParseFlags(rest); err != nil {
				t.Errorf("%s: the example %q: %v", c.CommandPath(), example, err)
			} else if err := meant.ValidateArgs(meant.Flags().Args()); err != nil {
				t.Errorf("%s: the example %q: %v", c.CommandPath(), example, err)
			}
		}
	}
}
