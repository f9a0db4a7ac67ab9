package httpapi

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"fallback/functions/envelope"
)

// TestLoop holds that a replay which comes back is refused before anything else is looked at, however its mark is
// spelled, and that no part of it is read or stored.
func TestLoop(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		mark string
		make func() *http.Request
		with func(*Options)
	}{
		{"at an open door", "Fallback-Attempt", func() *http.Request { return request("POST", "/fallback", "x") }, nil},
		{"as CGI would read it", "Fallback_attempt", func() *http.Request { return request("POST", "/fallback", "x") },
			nil},
		{"where a token is needed", "Fallback-Attempt",
			func() *http.Request { return request("POST", "/fallback", "x") },
			func(o *Options) { o.Tokens = []string{"one"} }},
		{"with a token", "Fallback-Attempt", func() *http.Request {
			r := request("POST", "/fallback", "x")
			r.Header.Set("Fallback-Authorization", "Bearer one")
			return r
		}, func(o *Options) { o.Tokens = []string{"one"} }},
		{"too large", "Fallback-Attempt", func() *http.Request {
			return request("POST", "/fallback",
				strings.Repeat("x", 17))
		}, nil},
		{"over the rate", "Fallback-Attempt", func() *http.Request { return request("POST", "/fallback", "x") },
			func(o *Options) { o.Rate = 1e-9 }},
		{"a method that is not queued", "Fallback-Attempt",
			func() *http.Request { return request("GET", "/fallback", "") }, nil},
		{"the drain's probe", "Fallback-Attempt", func() *http.Request { return request("GET", "/livez", "") }, nil},
		{"elsewhere", "Fallback-Attempt", func() *http.Request { return request("POST", "/orders", "x") }, nil},
		{"unsigned, where signed ones are let in", "Fallback-Attempt",
			func() *http.Request { return request("POST", "/fallback", "x") },
			func(o *Options) { o.AcceptReplays = []string{"whsec_b3Vycw=="} }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			o := options()
			if row.with != nil {
				row.with(&o)
			}
			d := door(t, o, store{publish: func(context.Context,
				*envelope.Request) error {
				t.Error("it was stored")
				return nil
			}})
			r := row.make()
			r.Header[row.mark] = []string{"1"}
			r.Body = io.NopCloser(readFunc(func([]byte) (int, error) {
				t.Error("the body was read")
				return 0,
					io.EOF
			}))
			checkAnswer(t, serve(d, r), http.StatusLoopDetected, "loop")
		})
	}
}

// TestAcceptReplays holds which replays of another Fallback are let in: those that it signed, by that alone, as the
// requests that they are.
func TestAcceptReplays(t *testing.T) {
	t.Parallel()
	const theirs, next, foreign = "whsec_dGhlaXJz", "whsec_bmV4dA==", "whsec_Zm9yZWlnbg=="
	const id, at = "01a20262-fead-745d-a0dd-93831abf4e21", "2026-11-22T08:32:51.885177639Z"
	for _, row := range []struct {
		name, secret, body string // signed
		change             func(http.Header)
		hops               string // stored
	}{
		{"signed", theirs, "x", nil, "1"},
		{"by the second secret", next, "x", nil, "1"},
		{"that has been through doors", theirs, "x", func(h http.Header) { h.Set("Fallback-Hops", "3") }, "4"},
		{"that has been through too many", theirs, "x", func(h http.Header) { h.Set("Fallback-Hops", "4") }, ""},
		{"that counts wrongly", theirs, "x", func(h http.Header) { h.Set("Fallback-Hops", "-9") }, ""},
		{"by another secret", foreign, "x", nil, ""},
		{"of another body", theirs, "y", nil, ""},
		{"of another id", theirs, "x", func(h http.Header) {
			h.Set("Fallback-Id",
				"01a20262-fead-745d-a0dd-93831abf4e22")
		}, ""},
		{"of another time", theirs, "x", func(h http.Header) { h.Set("Fallback-Received-At", "2026-11-22T08:32:52Z") },
			""},
		{"that seems to ask about the server", theirs, "x", nil, "1"},
		{"elsewhere", theirs, "x", nil, ""},
		{"without a time", theirs, "x", func(h http.Header) { h.Del("Fallback-Received-At") }, ""},
		{"with two ids", theirs, "x", func(h http.Header) { h.Add("Fallback-Id", "other") }, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var stored *envelope.Request
			o := options()
			o.Tokens, o.Methods, o.AcceptReplays = []string{"one"}, []string{"PUT"}, []string{theirs, next}
			r := request("POST", "/fallback/orders", "x")
			switch row.name {
			case "that seems to ask about the server":
				r.Method, r.RequestURI, o.Prefix = "GET", "/readyz", "/"
			case "elsewhere":
				r.RequestURI = "/orders"
			}
			d := door(t, o, store{publish: func(_ context.Context,
				r *envelope.Request) error {
				stored = r
				return nil
			}})
			sign(t, r, row.secret, id, at, row.body)
			r.Header.Set("X-Forwarded-For", "198.51.100.9")
			r.Header.Set("Idempotency-Key", id)
			if row.change != nil {
				row.change(r.Header)
			}
			w := serve(d, r)
			if row.hops == "" {
				checkAnswer(t, w, http.StatusLoopDetected, "loop")
				if stored != nil {
					t.Errorf("stored: %+v", stored)
				}
				return
			}
			checkAnswer(t, w, http.StatusAccepted, "")
			if stored == nil || stored.ID != id || stored.ReceivedAt.Format(time.RFC3339Nano) != at ||
				w.Header().Get("Fallback-Id") != id {
				t.Fatalf("stored: %+v, answered with id %q", stored, w.Header().Get("Fallback-Id"))
			}
			want := map[string]string{
				"Fallback-Hops": row.hops, "Idempotency-Key": id, "Fallback-Id": "", "Fallback-Attempt": "",
				"Fallback-Received-At": "", "Fallback-Signature": "",
				"X-Forwarded-For": "", // the signature says nothing of it
			}
			for name, want := range want {
				if got := stored.Header.Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
		})
	}
}

// TestProbeOfAnother holds that a drain whose replays are let in hears whether the door is ready.
func TestProbeOfAnother(t *testing.T) {
	t.Parallel()
	o := options()
	o.AcceptReplays = []string{"whsec_b3Vycw=="}
	var trouble error
	d := door(t, o, store{ready: func(context.Context) error { return trouble }})
	probe := request("GET", "/fallback/", "")
	probe.Header.Set("Fallback-Attempt", "0")
	checkAnswer(t, serve(d, probe), http.StatusOK, "")
	trouble = failure{"queue-full", "the queue is full"}
	checkAnswer(t, serve(d, probe), http.StatusServiceUnavailable, "queue-full")
}

// TestReplayOfAnotherProgramsMessage holds that an id that is no UUID becomes the same one each time.
func TestReplayOfAnotherProgramsMessage(t *testing.T) {
	t.Parallel()
	o := options()
	o.AcceptReplays = []string{"whsec_b3Vycw=="}
	var ids []string
	d := door(t, o, store{publish: func(_ context.Context, r *envelope.Request) error { ids = append(ids, r.ID); return nil }})
	for range 2 {
		r := request("POST", "/fallback", "x")
		sign(t, r, "whsec_b3Vycw==", `order "7"`, "2026-11-22T08:32:51Z", "x")
		checkAnswer(t, serve(d, r), http.StatusAccepted, "")
	}
	if _, err := uuid.Parse(ids[0]); err != nil || ids[0] != ids[1] {
		t.Errorf("got %q", ids)
	}
	dotted := request("POST", "/fallback", "x")
	sign(t, dotted, "whsec_b3Vycw==", "order.7", "2026-11-22T08:32:51Z", "x")
	checkAnswer(t, serve(d, dotted), http.StatusLoopDetected, "loop")
}

// sign makes of a request a replay, as the drain does.
func sign(t *testing.T, r *http.Request, secret, id, received, body string) {
	t.Helper()
	wh, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse(time.RFC3339Nano, received)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := wh.Sign(id, at, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Fallback-Id": id, "Fallback-Attempt": "1", "Fallback-Received-At": received, "Fallback-Signature": signature,
	} {
		r.Header.Set(name, value)
	}
}
