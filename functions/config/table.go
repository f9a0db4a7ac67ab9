package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Settings are all settings, in the order of [Config].
func Settings() []Setting { return slices.Clone(settings) }

// Example is a value that a setting may have; the default, where that is one.
func Example(name string) string {
	s := find(name)
	return cmp.Or(s.Example, strings.TrimSpace(s.Default))
}

func find(name string) Setting {
	for _, s := range settings {
		if s.Name == name {
			return s
		}
	}
	return Setting{}
}

// wrong is what is wrong with a setting, with an example of what is right.
func wrong(name, format string, args ...any) error {
	err := fmt.Errorf(name+": "+format, args...)
	if example := Example(name); example != "" {
		return fmt.Errorf("%w; for example %s", err, example)
	}
	return err
}

// Markdown is the table of settings for the README.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| variable | default | what it is |\n| --- | --- | --- |\n")
	for _, s := range settings {
		value := ""
		if s.Default != "" {
			value = "`" + s.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s.Name, value, s.About)
	}
	return b.String()
}
