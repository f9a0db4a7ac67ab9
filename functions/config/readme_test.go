package config

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of settings into the README")

// TestREADME holds that the README's table of settings is the code's. `make generate` writes it.
func TestREADME(t *testing.T) {
	const file, begin, end = "../../README.md", "<!-- settings -->\n", "<!-- /settings -->\n"
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(raw), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("README.md has no %q and %q", begin, end)
	}
	want := before + begin + Markdown() + end + after
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(raw) != want {
		t.Error("the table of settings in README.md is stale: make generate")
	}
}
