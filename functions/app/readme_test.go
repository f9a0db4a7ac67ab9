package app

import (
	"flag"
	"os"
	"strings"
	"testing"

	"fallback/functions/config"
	"fallback/functions/target"
)

var update = flag.Bool("update", false, "write the tables into the README")

// TestREADME holds that the README's tables are the code's. `make generate` writes them.
func TestREADME(t *testing.T) {
	const file = "../../README.md"
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := string(raw)
	for name, table := range map[string]string{"settings": config.Markdown(), "verdicts": target.Markdown()} {
		begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->\n"
		before, rest, found := strings.Cut(want, begin)
		_, after, closed := strings.Cut(rest, end)
		if !found || !closed {
			t.Fatalf("README.md has no %q and %q", begin, end)
		}
		want = before + begin + table + end + after
	}
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(raw) != want {
		t.Error("the tables in README.md are stale: make generate")
	}
}
