package main

import (
	"strings"
	"testing"
)

// TestFlagsRefuse holds that a number which means nothing is the caller's mistake, and not taken for "no limit". There is
// no broker: what gets past the command line ends with code 1.
func TestFlagsRefuse(t *testing.T) {
	t.Parallel()
	env := map[string]string{"AMQP_SERVER_URL": "amqp://127.0.0.1:1/"}
	for _, row := range []struct {
		args []string
		says string
	}{
		{[]string{"drain", "--once", "--for", "-1s"}, "--for"},
		{[]string{"drain", "--once", "--requests", "-1"}, "--requests"},
		{[]string{"redrive", "--all", "--rate", "-1"}, "--rate"},
		{[]string{"redrive", "--all", "--rate", "NaN"}, "--rate"},
		{[]string{"peek", "--most", "-1"}, "--most"},
		{[]string{"peek", "--most", "0"}, "--most"},
	} {
		t.Run(strings.Join(row.args, " "), func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := command(t, env, row.args...)
			if code != 2 || stdout != "" || !strings.Contains(stderr, row.says) {
				t.Errorf("got code %d, %q, %q", code, stdout, stderr)
			}
		})
	}
	for _, args := range [][]string{{"redrive", "--all", "--rate", "0"}, {"peek", "--most", "1"}, {"drain", "--once", "--for", "0s"}} {
		if _, stderr, code := command(t, env, args...); code != 1 {
			t.Errorf("%s: got code %d, %s", args, code, stderr)
		}
	}
}
