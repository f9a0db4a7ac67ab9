package app

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"fallback/functions/config"
	"fallback/functions/drain"
)

func environ(env map[string]string) (environ config.Environ) {
	for name, value := range env {
		environ = append(environ, name+"="+value)
	}
	return environ
}

// TestDrainFunctionSettings holds that a function without its settings says so, in its report and in its log, and shows
// no secret.
func TestDrainFunctionSettings(t *testing.T) {
	t.Parallel()
	const amqp, api = "amqp://user:sesame@127.0.0.1:1/", "https://sesame@api.example.com"
	for _, row := range []struct {
		name string
		env  map[string]string
		want []string
	}{
		{"nothing", nil, []string{"AMQP_SERVER_URL: not set",
			"FALLBACK_TARGET_URL: not set; for example https://api.example.com"}},
		{"no primary", map[string]string{"AMQP_SERVER_URL": amqp}, []string{"FALLBACK_TARGET_URL: not set"}},
		{"no broker", map[string]string{"FALLBACK_TARGET_URL": api}, []string{"AMQP_SERVER_URL: not set"}},
		{"not a broker", map[string]string{"AMQP_SERVER_URL": "http://user:sesame@h/", "FALLBACK_TARGET_URL": api},
			[]string{"AMQP_SERVER_URL: not an AMQP URL"}},
		{"not a primary", map[string]string{"AMQP_SERVER_URL": amqp, "FALLBACK_TARGET_URL": "sesame"},
			[]string{"FALLBACK_TARGET_URL: not an HTTP URL"}},
		{"a token without its s", map[string]string{"AMQP_SERVER_URL": amqp, "FALLBACK_TARGET_URL": api,
			"FALLBACK_TOKEN": "sesame"}, []string{"FALLBACK_TOKEN: no such setting"}},
		{"a bad secret", map[string]string{"AMQP_SERVER_URL": amqp, "FALLBACK_TARGET_URL": api,
			"FALLBACK_REPLAY_SECRET": "sesame!"}, []string{"FALLBACK_REPLAY_SECRET"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			f := NewDrainFunction(environ(row.env), &log)
			for range 2 {
				log.Reset()
				r := f.Run(t.Context())
				for _, want := range row.want {
					if !strings.Contains(r.LastError, want) || !strings.Contains(log.String(), want) {
						t.Errorf("got %+v and the log %s, want %q in both", r, &log, want)
					}
				}
				if r.End != "settings are missing or wrong" || r.Waiting != -1 ||
					strings.Contains(r.LastError+log.String(), "sesame") {
					t.Errorf("got %+v and the log %s", r, &log)
				}
			}
		})
	}
}

// TestDrainFunctionRuns holds that runs do not overlap, that one without time does nothing, and that the next one may
// run when the last is over. The broker takes connections and says nothing.
func TestDrainFunctionRuns(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	var log bytes.Buffer
	f := NewDrainFunction(environ(map[string]string{
		"AMQP_SERVER_URL":     "amqp://user:sesame@" + silent.Addr().String() + "/",
		"FALLBACK_TARGET_URL": "http://127.0.0.1:1",
	}), &log)

	soon, cancel := context.WithTimeout(t.Context(), drain.Grace)
	defer cancel()
	if r := f.Run(soon); r.End != "no time is left for a run" || !strings.Contains(log.String(), "limits.timeout") {
		t.Errorf("got %+v and the log %s", r, &log)
	}

	ctx, stop := context.WithCancel(t.Context())
	first := make(chan drain.Report)
	go func() { first <- f.Run(ctx) }()
	if _, err := silent.Accept(); err != nil { // it is under way
		t.Fatal(err)
	}
	if r := f.Run(t.Context()); r != (drain.Report{Waiting: -1, End: "another run is under way"}) {
		t.Errorf("beside the first: got %+v", r)
	}
	stop()
	if r := <-first; r.End != "it was stopped" {
		t.Errorf("the first: got %+v", r)
	}
	if r := f.Run(ctx); r.End != "it was stopped" {
		t.Errorf("after the first: got %+v", r)
	}
}

// TestSending holds how the time of a run is divided.
func TestSending(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ left, longest, want time.Duration }{
		{228 * time.Second, 30 * time.Second, 198 * time.Second},
		{60 * time.Second, 30 * time.Second, 30 * time.Second},
		{34 * time.Second, 30 * time.Second, 17 * time.Second},
		{8 * time.Second, 30 * time.Second, 4 * time.Second},
		{time.Millisecond, 10 * time.Minute, time.Millisecond / 2},
	} {
		if got := sending(row.left, row.longest); got != row.want {
			t.Errorf("of %s, with answers in %s: got %s, want %s", row.left, row.longest, got, row.want)
		}
	}
}
