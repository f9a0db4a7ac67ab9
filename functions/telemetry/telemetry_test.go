package telemetry

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFormat holds that logs which no person reads as they come are JSON, unless text is asked for.
func TestFormat(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		format string
		json   bool
	}{
		{"auto", true},
		{"json", true},
		{"text", false},
	} {
		t.Run(row.format, func(t *testing.T) {
			t.Parallel()
			var buf bytes.Buffer
			Logger(&buf, row.format, slog.LevelInfo).Info("listening", "addr", "127.0.0.1:1")
			if got := isJSON(buf.Bytes()); got != row.json {
				t.Errorf("JSON: got %v, want %v: %q", got, row.json, buf.String())
			}
			for _, part := range []string{"listening", "addr", "127.0.0.1:1"} {
				if !strings.Contains(buf.String(), part) {
					t.Errorf("%q is not in %q", part, buf.String())
				}
			}
		})
	}
}

// TestFileIsNoTerminal holds that "auto" looks at what the file is, and not only whether it is one.
func TestFileIsNoTerminal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	Logger(file, "auto", slog.LevelInfo).Info("listening")
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !isJSON(got) {
		t.Errorf("got %q, want JSON", got)
	}
}

func TestLevel(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	log := Logger(&buf, "json", slog.LevelWarn)
	log.Info("quiet")
	if buf.Len() > 0 {
		t.Errorf("below the level: got %q, want nothing", buf.String())
	}
	log.Warn("loud")
	if !strings.Contains(buf.String(), "loud") {
		t.Errorf("at the level: got %q", buf.String())
	}
}

func isJSON(b []byte) bool { return json.Valid(bytes.TrimSpace(b)) && bytes.HasPrefix(b, []byte("{")) }
