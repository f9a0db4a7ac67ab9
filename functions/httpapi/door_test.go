package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/envelope"
)

// store is a Store of functions; one that is not set says yes. publish gets what can be read of what is stored.
type store struct {
	publish func(context.Context, *envelope.Request) error
	ready   func(context.Context) error
}

func (s store) Publish(ctx context.Context, stored envelope.Sealed) error {
	if s.publish == nil {
		return nil
	}
	r, err := envelope.Decode(stored.ID, stored.Metadata, stored.Body)
	if err != nil {
		return err
	}
	return s.publish(ctx, r)
}

func (s store) Ready(ctx context.Context) error {
	if s.ready == nil {
		return nil
	}
	return s.ready(ctx)
}

func options() Options {
	return Options{
		Prefix: "/fallback", Methods: []string{"POST", "PUT"}, Queue: "Queue",
		Limits: Limits{Body: 16, Header: 2048}, Timeout: 5 * time.Second,
		InFlight: 100, BytesInHand: 1 << 20, Log: slog.New(slog.DiscardHandler),
	}
}

func door(t *testing.T, o Options, s Store) *Door {
	t.Helper()
	d, err := New(o, s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// request is one as net/http's server makes it.
func request(method, uri, body string) *http.Request {
	return &http.Request{
		Method: method, RequestURI: uri, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: "h",
		Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		RemoteAddr: "203.0.113.7:5000",
	}
}

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// checkAnswer compares status and, for a problem, its type; name is empty for an answer that is none.
func checkAnswer(t *testing.T, w *httptest.ResponseRecorder, status int, name string) {
	t.Helper()
	if w.Code != status {
		t.Errorf("status: got %d, want %d: %s", w.Code, status, w.Body)
	}
	if name == "" {
		return
	}
	var p struct {
		Type, Title, Detail string
		Status              int
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type: got %q", got)
	}
	if !slices.Contains(append(Outcomes(), "queue-full", "not-configured"), name) { // the store's, and that of no door
		t.Errorf("%s is not among the outcomes", name)
	}
	if p.Type != "urn:fallback:problem:"+name || p.Status != status || p.Title == "" || p.Detail == "" {
		t.Errorf("problem: got %+v, want %s with status %d", p, name, status)
	}
	retry := w.Header().Get("Retry-After")
	if want := status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests; (retry != "") != want {
		t.Errorf("Retry-After of a %d: got %q", status, retry)
	}
}

// failure is an error of a store, as the door wants it.
type failure struct{ code, text string }

func (f failure) Error() string { return f.text }
func (f failure) Code() string  { return f.code }

// TestStoreErrors holds that what the store did not confirm is a 503 whatever the reason, that a reason made for people
// is told, and that its cause, which may name the broker, is not.
func TestStoreErrors(t *testing.T) {
	t.Parallel()
	const secret = "amqp://user:hunter2@10.0.0.7:5672"
	full := failure{"queue-full", "the queue is full"}
	for _, row := range []struct {
		name    string
		err     error
		problem string
		detail  string
	}{
		{"coded", full, "queue-full", "the queue is full"},
		{"coded, with a cause", fmt.Errorf("%w: dial %s", full, secret), "queue-full", "the queue is full"},
		{"coded, deep", fmt.Errorf("publish: %w", errors.Join(errors.New(secret), full)), "queue-full",
			"the queue is full"},
		{"not coded", errors.New(secret), "not-stored", "not accepted"},
		{"the deadline", context.DeadlineExceeded, "not-stored", "not accepted"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			d := door(t, options(), store{
				publish: func(context.Context, *envelope.Request) error { return row.err },
				ready:   func(context.Context) error { return row.err },
			})
			for _, r := range []*http.Request{request("POST", "/fallback", "x"), request("GET", "/readyz", "")} {
				w := serve(d, r)
				checkAnswer(t, w, http.StatusServiceUnavailable, row.problem)
				if r.Method == "POST" && !strings.Contains(w.Body.String(), row.detail) {
					t.Errorf("%q is not in %s", row.detail, w.Body)
				}
				if strings.Contains(w.Body.String(), "hunter2") || strings.Contains(w.Body.String(), "10.0.0.7") {
					t.Errorf("the answer shows the cause: %s", w.Body)
				}
			}
		})
	}
}

// TestAccepted holds the answer, that it is written after the store has said yes, and that it names what was stored.
func TestAccepted(t *testing.T) {
	t.Parallel()
	var stored *envelope.Request
	w := httptest.NewRecorder()
	d := door(t, options(), store{publish: func(_ context.Context, r *envelope.Request) error {
		if w.Flushed || w.Body.Len() > 0 || len(w.Header()) > 0 {
			t.Error("something was answered before the request was stored")
		}
		stored = r
		return nil
	}})
	d.ServeHTTP(w, request("POST", "/fallback/orders/42?x=1", "body"))
	checkAnswer(t, w, http.StatusAccepted, "")
	if stored == nil {
		t.Fatal("nothing was stored")
	}
	if stored.Method != "POST" || stored.Target != "/orders/42?x=1" || string(stored.Body) != "body" {
		t.Errorf("stored: %s %s %q", stored.Method, stored.Target, stored.Body)
	}
	var answer struct {
		ID, Queue  string
		ReceivedAt time.Time `json:"received_at"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	if answer.ID != stored.ID || answer.Queue != "Queue" || !answer.ReceivedAt.Equal(stored.ReceivedAt) {
		t.Errorf("answer: got %s for %s at %s", w.Body, stored.ID, stored.ReceivedAt)
	}
	if got := w.Header().Get("Fallback-Id"); got != stored.ID {
		t.Errorf("Fallback-Id: got %q, want %q", got, stored.ID)
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type: got %q", got)
	}
}

// TestPanic holds that a bug of ours is a 500 for one request, holds nothing of it, and does not touch the next one:
// not even its place among those in flight is lost.
func TestPanic(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	o := options()
	o.InFlight, o.BytesInHand = 1, o.Limits.Body
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	broken := true
	d := door(t, o, store{publish: func(context.Context, *envelope.Request) error {
		if broken {
			panic("hunter2")
		}
		return nil
	}})
	for range 3 {
		w := serve(d, request("POST", "/fallback", "x"))
		checkAnswer(t, w, http.StatusInternalServerError, "internal")
		if strings.Contains(w.Body.String(), "hunter2") {
			t.Errorf("the answer shows the panic: %s", w.Body)
		}
	}
	broken = false
	checkAnswer(t, serve(d, request("POST", "/fallback", "0123456789abcdef")), http.StatusAccepted, "")
	if !strings.Contains(log.String(), "hunter2") || !strings.Contains(log.String(), "door_test.go") {
		t.Errorf("the log does not say where: %s", &log)
	}
}

// TestAbort holds that what net/http uses to cut a connection is left to it.
func TestAbort(t *testing.T) {
	t.Parallel()
	d := door(t, options(), store{publish: func(context.Context,
		*envelope.Request) error {
		panic(http.ErrAbortHandler)
	}})
	defer func() {
		if v := recover(); v != http.ErrAbortHandler {
			t.Errorf("got %v, want %v", v, http.ErrAbortHandler)
		}
	}()
	serve(d, request("POST", "/fallback", "x"))
}

// TestDeadline holds that the store has until the door's timeout, or until a little before the platform's end if that
// comes sooner, and that a client's going away ends nothing.
func TestDeadline(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name     string
		platform time.Duration // from now; 0 for none
		want     time.Duration
	}{
		{"the door's own", 0, 5 * time.Second},
		{"the platform's is sooner", 3 * time.Second, 2750 * time.Millisecond},
		{"the platform's is later", 15 * time.Minute, 5 * time.Second},
		{"the platform's is later by less than its margin", 5100 * time.Millisecond, 4850 * time.Millisecond},
		{"the platform's is over", time.Nanosecond, -250*time.Millisecond + time.Nanosecond},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var got time.Duration
				d := door(t, options(), store{publish: func(ctx context.Context, _ *envelope.Request) error {
					deadline, ok := ctx.Deadline()
					if !ok {
						t.Error("the store has no deadline")
					}
					got = time.Until(deadline)
					return nil
				}})
				ctx, cancel := context.WithCancel(context.Background())
				if row.platform > 0 {
					ctx, cancel = context.WithTimeout(ctx, row.platform)
				}
				defer cancel()
				checkAnswer(t, serve(d, request("POST", "/fallback", "x").WithContext(ctx)), http.StatusAccepted, "")
				if got != row.want {
					t.Errorf("got %s, want %s", got, row.want)
				}
			})
		})
	}
}

func TestClientGoesAway(t *testing.T) {
	t.Parallel()
	ctx, goAway := context.WithCancel(context.Background())
	var got error
	d := door(t, options(), store{publish: func(ctx context.Context, _ *envelope.Request) error {
		goAway()
		got = ctx.Err()
		return got
	}})
	checkAnswer(t, serve(d, request("POST", "/fallback", "x").WithContext(ctx)), http.StatusAccepted, "")
	if got != nil {
		t.Errorf("the store's context ended with the client's: %v", got)
	}
}

// TestTarget holds what is captured, and that the rest of the target stays as it is, byte for byte.
func TestTarget(t *testing.T) {
	t.Parallel()
	const none = ""
	for _, row := range []struct{ prefix, uri, want string }{
		{"/fallback", "/fallback", "/"},
		{"/fallback", "/fallback/", "/"},
		{"/fallback", "/fallback?", "/?"},
		{"/fallback", "/fallback?x=1", "/?x=1"},
		{"/fallback", "/fallback/orders/42?x=1", "/orders/42?x=1"},
		{"/fallback", "/fallback//orders", "//orders"},
		{"/fallback", "/fallback/a%2Fb/../c/./%E2%82%AC?a&&b=%zz", "/a%2Fb/../c/./%E2%82%AC?a&&b=%zz"},
		{"/fallback", "/fallback/fallback", "/fallback"},
		{"/fallback", "/fallback/livez", "/livez"},
		{"/fallback", "/fallback/?u=http://h/x", "/?u=http://h/x"},
		{"/fallback", "/fallbackx", none},
		{"/fallback", "/fallback%2Fx", none},
		{"/fallback", "/Fallback", none},
		{"/fallback", "/%66allback", none},
		{"/fallback", "//fallback", none},
		{"/fallback", "/", none},
		{"/fallback", "/x/fallback", none},
		{"/fallback", "*", none},
		{"/fallback/", "/fallback/x", "/x"},
		{"/a/b", "/a/b/c", "/c"},
		{"/a/b", "/a", none},
		{"/", "/", "/"},
		{"/", "/fallback/x?y", "/fallback/x?y"},
		{"/", "//x", "//x"},
		{"/", "*", none},
		// A client that takes the door for a proxy (RFC 9112, 3.2.2).
		{"/fallback", "http://h/fallback/x?y=1", "/x?y=1"},
		{"/fallback", "https://h:8443/fallback?u=http://i/j", "/?u=http://i/j"},
		{"/fallback", "http://h/x", none},
		{"/fallback", "http://h", none},
		{"/", "http://h", "/"},
		{"/", "http://h?x=1", "/?x=1"},
		{"/", "http://h?x=/y", "/?x=/y"},
		{"/", "http://h//x", "//x"},
	} {
		t.Run(row.prefix+" "+row.uri, func(t *testing.T) {
			t.Parallel()
			o := options()
			o.Prefix = row.prefix
			got := none
			d := door(t, o, store{publish: func(_ context.Context, r *envelope.Request) error {
				got = r.Target
				return nil
			}})
			w := serve(d, request("POST", row.uri, "x"))
			if row.want == none {
				checkAnswer(t, w, http.StatusNotFound, "not-found")
				if strings.Contains(w.Body.String(), "  ") {
					t.Errorf("a word is missing: %s", w.Body)
				}
			} else {
				checkAnswer(t, w, http.StatusAccepted, "")
			}
			if got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

// TestRefused holds the answers to what is not stored.
func TestRefused(t *testing.T) {
	t.Parallel()
	chunked := func(body io.Reader) *http.Request {
		r := request("POST", "/fallback", "")
		r.Body, r.ContentLength = io.NopCloser(body), -1
		return r
	}
	short := request("POST", "/fallback", "012")
	short.ContentLength = 8
	for _, row := range []struct {
		name    string
		request *http.Request
		status  int
		problem string
	}{
		{"a body at the limit", request("POST", "/fallback", "0123456789abcdef"), 202, ""},
		{"a body over the limit", request("POST", "/fallback", "0123456789abcdefg"), 413, "body-too-large"},
		{"a body of unknown length at the limit", chunked(strings.NewReader("0123456789abcdef")), 202, ""},
		{"a body of unknown length over the limit", chunked(strings.NewReader("0123456789abcdefg")), 413,
			"body-too-large"},
		{"a target over the limit", request("POST", "/fallback/"+strings.Repeat("x", 2048), ""), 431,
			"headers-too-large"},
		{"a body shorter than it says", short, 400, "unreadable"},
		{"a body that breaks off", chunked(io.MultiReader(strings.NewReader("x"), broken{io.ErrUnexpectedEOF})), 400,
			"unreadable"},
		{"a body that does not come", chunked(broken{os.ErrDeadlineExceeded}), 408, "body-too-slow"},
		{"GET", request("GET", "/fallback", ""), 503, "method-not-queued"},
		{"a method of nobody", request("BREW", "/fallback", ""), 503, "method-not-queued"},
		{"a method in lower case, which is another", request("post", "/fallback", ""), 503, "method-not-queued"},
		{"GET elsewhere", request("GET", "/", ""), 404, "not-found"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			stored := 0
			d := door(t, options(), store{publish: func(context.Context,
				*envelope.Request) error {
				stored++
				return nil
			}})
			checkAnswer(t, serve(d, row.request), row.status, row.problem)
			if want := map[bool]int{true: 1}[row.status == 202]; stored != want {
				t.Errorf("%d requests were stored, want %d", stored, want)
			}
		})
	}
}

// broken is a body that ends with an error.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// TestOverload holds that what is over a bound is refused at once, and that the room comes back.
func TestOverload(t *testing.T) {
	t.Parallel()
	const longest = "0123456789abcdef"
	for _, row := range []struct {
		name          string
		inFlight      int
		bytesInHand   int64
		first         string
		unknownLength bool // of the first
		status        int  // of a second request, of one byte
	}{
		{"room for both", 2, 17, "x", true, 202},
		{"one request too many", 1, 1000, "x", false, 503},
		{"one byte too many", 2, 16, longest, false, 503},
		{"a body of unknown length counts as what there was room made for", 2, 16, "x", true, 503},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // in which a wait without end is a failure
				o := options()
				o.InFlight, o.BytesInHand = row.inFlight, row.bytesInHand
				begun, goOn := make(chan struct{}, 1), make(chan struct{})
				d := door(t, o, store{publish: func(context.Context, *envelope.Request) error {
					begun <- struct{}{}
					<-goOn
					return nil
				}})
				begin := func(r *http.Request) <-chan *httptest.ResponseRecorder {
					answer := make(chan *httptest.ResponseRecorder, 1)
					go func() { answer <- serve(d, r) }()
					return answer
				}
				r := request("POST", "/fallback", row.first)
				if row.unknownLength {
					r.ContentLength = -1
				}
				first := begin(r)
				<-begun
				second := begin(request("POST", "/fallback", "y"))
				if row.status == 503 {
					checkAnswer(t, <-second, 503, "overloaded") // while the first one waits
					close(goOn)
				} else {
					<-begun // while the first one waits
					close(goOn)
					checkAnswer(t, <-second, 202, "")
				}
				checkAnswer(t, <-first, 202, "")
				for range 5 {
					checkAnswer(t, serve(d, request("POST", "/fallback", longest)), 202, "")
					<-begun
				}
			})
		})
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := options()
		o.Rate = 3
		d := door(t, o, store{})
		second := func() (taken int) {
			for range 10 {
				if w := serve(d, request("POST", "/fallback", "x")); w.Code == http.StatusAccepted {
					taken++
				} else {
					checkAnswer(t, w, http.StatusTooManyRequests, "rate-limited")
				}
			}
			return taken
		}
		for i := range 3 {
			if got := second(); got != 3 {
				t.Errorf("second %d: %d were taken, want 3", i, got)
			}
			time.Sleep(time.Second)
		}
	})
}

// TestStrangerIsNotRead holds that a request without a key costs no reading of its body.
func TestStrangerIsNotRead(t *testing.T) {
	t.Parallel()
	o := options()
	o.Tokens, o.WebhookSecrets = []string{"one"}, []string{"whsec_YQ=="}
	r := request("POST", "/fallback", "")
	read := false
	r.Body, r.ContentLength = io.NopCloser(readFunc(func([]byte) (int, error) { read = true; return 0, io.EOF })), -1
	checkAnswer(t, serve(door(t, o, store{}), r), http.StatusUnauthorized, "unauthorized")
	if read {
		t.Error("the body was read")
	}
}

// TestStrangerUsesUpNothing holds that requests without a key do not count against those with one.
func TestStrangerUsesUpNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // in which no second passes that would let another one in
		o := options()
		o.Tokens, o.WebhookSecrets, o.Rate = []string{"one"}, []string{"whsec_b3Vycw=="}, 1
		d := door(t, o, store{})
		for range 10 {
			checkAnswer(t, serve(d, request("POST", "/fallback", "x")), http.StatusUnauthorized, "unauthorized")
			forged := request("POST", "/fallback", "x")
			forged.Header.Set("Webhook-Signature", "v1,eHh4")
			checkAnswer(t, serve(d, forged), http.StatusUnauthorized, "unauthorized")
		}
		friend := request("POST", "/fallback", "x")
		friend.Header.Set("Fallback-Authorization", "Bearer one")
		checkAnswer(t, serve(d, friend), http.StatusAccepted, "")
		another := request("POST", "/fallback", "x")
		another.Header.Set("Fallback-Authorization", "Bearer one")
		checkAnswer(t, serve(d, another), http.StatusTooManyRequests, "rate-limited")
	})
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// TestHealth holds that health is ours behind every prefix, for GET and HEAD only, and is never kept by a cache.
func TestHealth(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"/fallback", "/"} {
		o := options()
		o.Prefix = prefix
		stored := 0
		d := door(t, o, store{publish: func(context.Context, *envelope.Request) error { stored++; return nil }})
		for _, method := range []string{"GET", "HEAD"} {
			for _, uri := range []string{"/livez", "/readyz", "/livez?x=1", "http://h/readyz"} {
				w := serve(d, request(method, uri, ""))
				checkAnswer(t, w, http.StatusOK, "")
				if got := w.Header().Get("Cache-Control"); got != "no-store" {
					t.Errorf("%s %s: Cache-Control %q", method, uri, got)
				}
			}
		}
		if stored != 0 {
			t.Errorf("prefix %s: %d of them were stored", prefix, stored)
		}
		want := map[string]int{"/": 202, "/fallback": 404}[prefix]
		checkAnswer(t, serve(d, request("POST", "/livez", "x")), want, map[int]string{404: "not-found"}[want])
	}
}

// TestReadyIsBounded holds that a store which does not answer does not hold up the question.
func TestReadyIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := door(t, options(), store{ready: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
		begin := time.Now()
		checkAnswer(t, serve(d, request("GET", "/readyz", "")), http.StatusServiceUnavailable, "not-stored")
		if got := time.Since(begin); got != 5*time.Second {
			t.Errorf("took %s, want 5s", got)
		}
		checkAnswer(t, serve(d, request("GET", "/livez", "")), http.StatusOK, "")
	})
}

func TestUnconfigured(t *testing.T) {
	t.Parallel()
	checkAnswer(t, serve(Unconfigured, request("POST", "/fallback", "x")), http.StatusServiceUnavailable,
		"not-configured")
}
