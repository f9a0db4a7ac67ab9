package rabbit

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestReportIsForAll holds that what the log says of the queue and the user's permission is true of all that publish:
// the server, which answers requests, and the drain, which moves them.
func TestReportIsForAll(t *testing.T) {
	t.Parallel()
	for _, err := range []error{ErrUnroutable, ErrNotAllowed} {
		var log bytes.Buffer
		NewPublisher(Options{Log: slog.New(slog.NewTextHandler(&log, nil))}).report(err)
		if !strings.Contains(log.String(), "hint=") || strings.Contains(log.String(), "503") {
			t.Errorf("%v: the log says %s", err, &log)
		}
	}
}
