package app

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestShape holds what is read at a glance: lines of 120 columns, a tab being four, files of 350 lines, and of ten
// functions nine of 30 lines at most.
func TestShape(t *testing.T) {
	t.Parallel()
	const columns, lines, nineInTen = 120, 350, 30
	var lengths []int
	for _, s := range sources(t, "functions", "packages") {
		if s.test {
			continue
		}
		raw, err := os.ReadFile(filepath.Join("..", "..", s.file))
		if err != nil {
			t.Fatal(err)
		}
		number := 0
		for line := range strings.Lines(string(raw)) {
			number++
			line = strings.ReplaceAll(strings.TrimSuffix(line, "\n"), "\t", "    ")
			if n := utf8.RuneCountInString(line); n > columns && !strings.Contains(line, "//go:") {
				t.Errorf("%s:%d: %d columns", s.file, number, n)
			}
		}
		if number > lines {
			t.Errorf("%s: %d lines", s.file, number)
		}
		lengths = append(lengths, functionLengths(t, s.file, raw)...)
	}
	slices.Sort(lengths)
	if got := lengths[len(lengths)*9/10]; got > nineInTen {
		t.Errorf("of ten functions, nine have up to %d lines", got)
	}
}

func functionLengths(t *testing.T, name string, raw []byte) (lengths []int) {
	t.Helper()
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, name, raw, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range parsed.Decls {
		if f, ok := d.(*ast.FuncDecl); ok {
			lengths = append(lengths, files.Position(f.End()).Line-files.Position(f.Pos()).Line+1)
		}
	}
	return lengths
}
