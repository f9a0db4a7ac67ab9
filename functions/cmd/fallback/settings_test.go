package main

import (
	"net"
	"strings"
	"testing"
)

// TestStartWithASlip holds that no server and no drain starts whose door is open by a slip, and that another slip is told.
func TestStartWithASlip(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0") // so that a start ends where it would begin to listen
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, args := range [][]string{{"serve"}, {"drain"}, {"drain", "--once"}} {
		env := map[string]string{"AMQP_SERVER_URL": "amqp://u:p@127.0.0.1:1/", "FALLBACK_ADDR": taken.Addr().String(), "FALLBACK_DRAIN_ADDR": taken.Addr().String()}
		env["FALLBACK_MAX_AGES"] = "geheim"
		_, stderr, code := command(t, env, args...)
		if code != 1 || !strings.Contains(stderr, "no such setting") || !strings.Contains(stderr, "FALLBACK_MAX_AGE\n") && !strings.Contains(stderr, `"nearest":"FALLBACK_MAX_AGE"`) {
			t.Errorf("%s: got %d, %s; want it told, and a start that goes on", args, code, stderr)
		}
		env["FALLBACK_TOKEN"] = "geheim"
		_, shut, code := command(t, env, args...)
		if code != 1 || !strings.Contains(shut, "FALLBACK_TOKEN: no such setting; the nearest is FALLBACK_TOKENS") || strings.Contains(shut, "address already in use") {
			t.Errorf("%s: got %d, %s; want it to be refused", args, code, shut)
		}
		if strings.Contains(stderr+shut, "geheim") {
			t.Errorf("%s: a value is shown: %s%s", args, stderr, shut)
		}
	}
}

// TestSettingsUnknown holds what the names alone are good for.
func TestSettingsUnknown(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		names, want string
		code        int
	}{
		{"", "", 0},
		{"PATH FALLBACK_TOKENS FALLBACK_DEFINITIONS", "", 0},
		{"FALLBACK_TARGET", "FALLBACK_TARGET: no such setting; the nearest is FALLBACK_TARGET_URL\n", 0},
		{"FALLBACK_TOKEN PATH", "FALLBACK_TOKEN: no such setting; the nearest is FALLBACK_TOKENS\n", 1},
	} {
		stdout, stderr, code := command(t, nil, append([]string{"settings", "--unknown"}, strings.Fields(row.names)...)...)
		if stdout != row.want || code != row.code || (stderr == "") != (code == 0) {
			t.Errorf("%q: got %d, %q, %q; want %d, %q", row.names, code, stdout, stderr, row.code, row.want)
		}
	}
	if _, _, code := command(t, nil, "settings", "FALLBACK_TOKEN"); code != 2 {
		t.Errorf("names without the flag: got %d, want 2", code)
	}
}
