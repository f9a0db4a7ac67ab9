package app

import (
	"flag"
	"os"
	"strings"
	"testing"

	"fallback/functions/config"
	"fallback/functions/target"
)

var update = flag.Bool("update", false, "write the tables into the pages")

// TestPages holds that the tables in the pages are the code's. `make generate` writes them.
func TestPages(t *testing.T) {
	for _, page := range []struct{ file, name, table string }{
		{"README.md", "settings", config.Markdown()},
		{"docs/drain.md", "verdicts", target.Markdown()},
	} {
		file := "../../" + page.file
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		begin, end := "<!-- "+page.name+" -->\n", "<!-- /"+page.name+" -->\n"
		before, rest, found := strings.Cut(string(raw), begin)
		_, after, closed := strings.Cut(rest, end)
		if !found || !closed {
			t.Fatalf("%s has no %q and %q", page.file, begin, end)
		}
		want := before + begin + page.table + end + after
		if *update {
			if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if string(raw) != want {
			t.Errorf("the table in %s is stale: make generate", page.file)
		}
	}
}
