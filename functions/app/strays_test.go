package app

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestFunctionsTellStrays holds that a function tells what it was given and does not read, and that its door is not
// open because of a slip: it takes nothing then.
func TestFunctionsTellStrays(t *testing.T) {
	t.Parallel()
	settings := map[string]string{"AMQP_SERVER_URL": "amqp://u:p@127.0.0.1:1/",
		"FALLBACK_TARGET_URL": "http://127.0.0.1:1"}
	for _, row := range []struct {
		name, variable, log string
		door                string // the problem's type of what it answers
	}{
		{"told", "FALLBACK_MAX_AGES", `"name":"FALLBACK_MAX_AGES","nearest":"FALLBACK_MAX_AGE"`, "broker-unavailable"},
		{"shut", "FALLBACK_TOKEN", "FALLBACK_TOKEN: no such setting; the nearest is FALLBACK_TOKENS", "not-configured"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			env := environ(settings)
			env = append(env, row.variable+"=geheim", "FALLBACK_TIMEOUT=100ms")
			var log bytes.Buffer
			door := NewDoorFunction(env, &log)
			defer door.Close()
			answer := httptest.NewRecorder()
			door.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/", strings.NewReader("x")))
			if !strings.Contains(log.String(), row.log) || strings.Contains(log.String(), "geheim") {
				t.Errorf("got the log %s, want %s", &log, row.log)
			}
			if answer.Code != http.StatusServiceUnavailable || !strings.Contains(answer.Body.String(), row.door) {
				t.Errorf("got %d %s, want a 503 of %s", answer.Code, answer.Body, row.door)
			}
			log.Reset()
			NewDrainFunction(env, &log).Close()
			if row.name == "told" && !strings.Contains(log.String(), row.log) {
				t.Errorf("the drain's log: got %s, want %s", &log, row.log)
			}
		})
	}
}
