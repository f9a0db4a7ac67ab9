package httpapi

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"fallback/functions/envelope"
)

// TestTokens holds who is let in, by a token in any of its places, and that no token of ours is stored: what is not
// ours is the primary's, and is.
func TestTokens(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, uri  string
		in         []string // header, as pairs
		place      int      // of the token; 0 for a refusal
		target     string   // stored
		authorized []string // stored as Authorization
		elsewhere  string   // stored in X-Elsewhere
	}{
		{"the first", "/fallback", []string{"Fallback-Authorization", "Bearer one"}, 1, "/", nil, ""},
		{"the second", "/fallback", []string{"Fallback-Authorization", "Bearer two"}, 2, "/", nil, ""},
		{"the scheme in lower case", "/fallback", []string{"Fallback-Authorization", "bearer one"}, 1, "/", nil, ""},
		{"more space", "/fallback", []string{"Fallback-Authorization", "Bearer   one"}, 1, "/", nil, ""},
		{"with one of the primary's", "/fallback",
			[]string{"Fallback-Authorization", "Bearer one", "Authorization", "Bearer theirs"}, 1, "/",
			[]string{"Bearer theirs"}, ""},
		{"none", "/fallback", nil, 0, "", nil, ""},
		{"another", "/fallback", []string{"Fallback-Authorization", "Bearer three"}, 0, "", nil, ""},
		{"part of one", "/fallback", []string{"Fallback-Authorization", "Bearer on"}, 0, "", nil, ""},
		{"more than one", "/fallback", []string{"Fallback-Authorization", "Bearer onetwo"}, 0, "", nil, ""},
		{"another scheme", "/fallback", []string{"Fallback-Authorization", "Basic one"}, 0, "", nil, ""},
		{"no scheme", "/fallback", []string{"Fallback-Authorization", "one"}, 0, "", nil, ""},
		{"a scheme alone", "/fallback", []string{"Fallback-Authorization", "Bearer"}, 0, "", nil, ""},
		{"an empty token", "/fallback", []string{"Fallback-Authorization", "Bearer "}, 0, "", nil, ""},
		{"in a field that only looks alike", "/fallback", []string{"Fallback_authorization", "Bearer one"}, 0, "", nil,
			""},

		{"as Authorization", "/fallback", []string{"Authorization", "Bearer two"}, 2, "/", nil, ""},
		{"as Authorization, beside the primary's", "/fallback",
			[]string{"Authorization", "Basic dTpw", "Authorization", "Bearer one"}, 1, "/", []string{"Basic dTpw"}, ""},
		{"the primary's Authorization alone", "/fallback", []string{"Authorization", "Bearer theirs"}, 0, "", nil, ""},

		{"in the path", "/fallback/-/one/orders/42?x=1", nil, 1, "/orders/42?x=1", nil, ""},
		{"in the path, and nothing behind it", "/fallback/-/two", nil, 2, "/", nil, ""},
		{"in the path, and a query behind it", "/fallback/-/one?x=1", nil, 1, "/?x=1", nil, ""},
		{"in the path, and more slashes", "/fallback/-/one//orders", nil, 1, "//orders", nil, ""},
		{"in the path, with escapes", "/fallback/-/%6Fne/a%2Fb", nil, 1, "/a%2Fb", nil, ""},
		{"in the path, with what only an escape can hold", "/fallback/-/a%2Fb%3F/c", nil, 3, "/c", nil, ""},
		{"in the path, twice", "/fallback/-/one/-/two/x", nil, 1, "/x", nil, ""},
		{"a path of the primary's", "/fallback/-/three/x", nil, 0, "", nil, ""},
		{"a path of the primary's, with a token", "/fallback/-/three/x",
			[]string{"Fallback-Authorization", "Bearer one"}, 1, "/-/three/x", nil, ""},
		{"in the path, and deeper in it", "/fallback/-/one/x/-/two?y=/-/one/z", nil, 1, "/x?y=/z", nil, ""},
		{"in the path, as base64 has them", "/fallback/-/Zm9v=/x", nil, 4, "/x", nil, ""},
		{"in the path, and wherever it is repeated", "/fallback/-/one/x?cb=https://h/fallback/-/one&y=1", []string{
			"X-Elsewhere", "</fallback/-/one> (/-/two) https%3A%2F%2Fh%2F-%2Ftwo%2Fx /-/three",
		}, 1, "/x?cb=https://h/fallback&y=1", nil, "</fallback> () https%3A%2F%2Fh%2Fx /-/three"},
		{"as Authorization, joined to the primary's", "/fallback", []string{"Authorization", "Basic dTpw, Bearer two"},
			2, "/", []string{"Basic dTpw"}, ""},
		{"an Authorization of the primary's with commas", "/fallback",
			[]string{"Authorization", `Digest a="b",  c="d"`, "Fallback-Authorization", "Bearer one"}, 1, "/",
			[]string{`Digest a="b",  c="d"`}, ""},
		{"deeper in the path alone", "/fallback/x/-/one", nil, 0, "", nil, ""},

		{"everywhere", "/fallback/-/two/x", []string{
			"Fallback-Authorization", "Bearer one", "Authorization", "Bearer two", "X-Elsewhere",
			"https://h/fallback/-/one/-/two/x/-/three, /-/two",
		}, 1, "/x", nil, "https://h/fallback/x/-/three, "},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			o := options()
			o.Tokens = []string{"one", "two", "a/b?", "Zm9v="}
			var log bytes.Buffer
			o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			var stored *envelope.Request
			place := 0
			o.Admitted = func(kind string, at int) {
				if place = at; kind != Token {
					t.Errorf("let in by a %s", kind)
				}
			}
			d := door(t, o, store{publish: func(_ context.Context,
				r *envelope.Request) error {
				stored = r
				return nil
			}})
			r := request("POST", row.uri, "x")
			for i := 0; i < len(row.in); i += 2 {
				r.Header[row.in[i]] = append(r.Header[row.in[i]], row.in[i+1])
			}
			w := serve(d, r)
			if log.Len() > 0 {
				t.Errorf("logged: %s", &log) // a path that is refused may hold a token
			}
			if place != row.place {
				t.Errorf("let in by token %d, want %d", place, row.place)
			}
			if row.place == 0 {
				checkAnswer(t, w, http.StatusUnauthorized, "unauthorized")
				if w.Header().Get("WWW-Authenticate") == "" {
					t.Error("no WWW-Authenticate")
				}
				if stored != nil {
					t.Error("it was stored")
				}
				return
			}
			checkAnswer(t, w, http.StatusAccepted, "")
			if stored.Target != row.target || !slices.Equal(stored.Header["Authorization"], row.authorized) ||
				stored.Header.Get("X-Elsewhere") != row.elsewhere {
				t.Errorf("stored: got %s with %v, want %s, %q and %q", stored.Target, stored.Header, row.target,
					row.authorized, row.elsewhere)
			}
			if stored.Prefix != "/fallback" {
				t.Errorf("the prefix: got %q", stored.Prefix)
			}
			if _, ok := stored.Header["Fallback-Authorization"]; ok {
				t.Error("the token was stored")
			}
		})
	}
}

// TestTokenForSigned holds that a token is taken off whatever lets the request in.
func TestTokenForSigned(t *testing.T) {
	t.Parallel()
	o := options()
	o.Tokens, o.AcceptReplays = []string{"one"}, []string{"whsec_b3Vycw=="}
	var stored *envelope.Request
	d := door(t, o, store{publish: func(_ context.Context, r *envelope.Request) error { stored = r; return nil }})
	r := request("POST", "/fallback/-/one/x", "x")
	sign(t, r, "whsec_b3Vycw==", "7", "2026-11-22T08:32:51Z", "x")
	r.Header.Set("Authorization", "Bearer one")
	r.Trailer = http.Header{"Authorization": {"Bearer one"}, "X-Url": {"/-/one/x"}}
	checkAnswer(t, serve(d, r), http.StatusAccepted, "")
	if stored.Target != "/x" || stored.Header.Get("Authorization") != "" || stored.Trailer.Get("Authorization") != "" ||
		stored.Trailer.Get("X-Url") != "/x" {
		t.Errorf("stored: %s with %v and %v", stored.Target, stored.Header, stored.Trailer)
	}
}

// TestOpenDoor holds that without keys nobody needs one, and that our header is not stored then either.
func TestOpenDoor(t *testing.T) {
	t.Parallel()
	var stored http.Header
	d := door(t, options(), store{publish: func(_ context.Context, r *envelope.Request) error {
		stored = r.Header
		return nil
	}})
	r := request("POST", "/fallback", "x")
	r.Header.Set("Fallback-Authorization", "Bearer whatever")
	checkAnswer(t, serve(d, r), http.StatusAccepted, "")
	if _, ok := stored["Fallback-Authorization"]; ok {
		t.Errorf("stored: got %v", stored)
	}
}

// TestSignatures holds that a signature counts for the very body, by any of the keys, under any of the names, and only
// while it is fresh; and that no body is read for one that cannot be good.
func TestSignatures(t *testing.T) {
	t.Parallel()
	const ours, second, foreign = "whsec_b3Vycw==", "whsec_c2Vjb25k", "whsec_Zm9yZWlnbg=="
	now := time.Now()
	rename := func(from, to string) func(http.Header) {
		return func(h http.Header) {
			h[to] = h[from]
			delete(h, from)
		}
	}
	svix := func(h http.Header) {
		for _, end := range []string{"Id", "Timestamp", "Signature"} {
			rename("Webhook-"+end, "Svix-"+end)(h)
		}
	}
	for _, row := range []struct {
		name, secret, id, body string // signed
		at                     time.Time
		change                 func(http.Header)
		place                  int  // of the secret; 0 for a refusal
		read                   bool // whether the body is read to refuse it
	}{
		{"fresh", ours, "msg_1", "x", now, nil, 1, false},
		{"by the second secret", second, "msg_1", "x", now, nil, 2, false},
		{"as Svix names it", ours, "msg_1", "x", now, svix, 1, false},
		{"in both names, one of them good", second, "msg_1", "x", now, func(h http.Header) {
			other := h.Clone()
			svix(other)
			for name, values := range other {
				h[name] = values
			}
			h["Webhook-Id"] = []string{"msg_2"}
		}, 2, false},
		{"among others", ours, "msg_1", "x", now, func(h http.Header) {
			h.Set("Webhook-Signature", "v1a,eHh4 v1,MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE= "+h.Get("Webhook-Signature"))
		}, 1, false},
		{"by another secret", foreign, "msg_1", "x", now, nil, 0, true},
		{"of another body", ours, "msg_1", "y", now, nil, 0, true},
		{"of another id", ours, "msg_1", "x", now, func(h http.Header) { h.Set("Webhook-Id", "msg_2") }, 0, true},
		{"names of both kinds", ours, "msg_1", "x", now, rename("Webhook-Id", "Svix-Id"), 0, false},
		{"six minutes old", ours, "msg_1", "x", now.Add(-6 * time.Minute), nil, 0, false},
		{"six minutes ahead", ours, "msg_1", "x", now.Add(6 * time.Minute), nil, 0, false},
		{"of no time", ours, "msg_1", "x", now, func(h http.Header) { h.Set("Webhook-Timestamp", "now") }, 0, false},
		{"of a time out of all bounds", ours, "msg_1", "x", now,
			func(h http.Header) { h.Set("Webhook-Timestamp", "-9223372036854775808") }, 0, false},
		{"any text", ours, "msg_1", "x", now, func(h http.Header) { h.Set("Webhook-Signature", "v1,eHh4") }, 0, false},
		{"without an id", ours, "msg_1", "x", now, func(h http.Header) { h.Del("Webhook-Id") }, 0, false},
		{"with two ids", ours, "msg_1", "x", now, func(h http.Header) { h.Add("Webhook-Id", "msg_2") }, 0, false},
		// The boundary: id "msg_1", time and body "1.x" would be signed alike.
		{"a dot in the id", ours, "msg_1.2", "x", now, nil, 0, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			wh, err := standardwebhooks.NewWebhook(row.secret)
			if err != nil {
				t.Fatal(err)
			}
			signature, err := wh.Sign(row.id, row.at, []byte(row.body))
			if err != nil {
				t.Fatal(err)
			}
			o := options()
			o.WebhookSecrets = []string{ours, second}
			place := 0
			o.Admitted = func(kind string, at int) {
				if place = at; kind != Webhook {
					t.Errorf("let in by a %s", kind)
				}
			}
			r := request("POST", "/fallback", "x")
			r.Header = http.Header{"Webhook-Id": {row.id}, "Webhook-Timestamp": {fmt.Sprint(row.at.Unix())},
				"Webhook-Signature": {signature}}
			if row.change != nil {
				row.change(r.Header)
			}
			read, body := false, r.Body
			r.Body = io.NopCloser(readFunc(func(p []byte) (int, error) { read = true; return body.Read(p) }))
			w := serve(door(t, o, store{}), r)
			if place != row.place {
				t.Errorf("let in by secret %d, want %d", place, row.place)
			}
			if row.place > 0 {
				checkAnswer(t, w, http.StatusAccepted, "")
				return
			}
			checkAnswer(t, w, http.StatusUnauthorized, "unauthorized")
			if read != row.read {
				t.Errorf("the body was read: %v, want %v", read, row.read)
			}
		})
	}
}

func TestBadWebhookSecret(t *testing.T) {
	t.Parallel()
	o := options()
	o.WebhookSecrets = []string{"whsec_YQ==", "whsec_hunter2!"}
	_, err := New(o, store{})
	if err == nil || !strings.Contains(err.Error(), "number 2") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v, want an error that tells which one and not what it is", err)
	}
}
