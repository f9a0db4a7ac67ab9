package target

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"fallback/functions/envelope"
)

// TestVerdicts is the golden table: what becomes of a request for each answer.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		status     int
		retryAfter string
		want       Action
		after      time.Duration
	}{
		{200, "", Done, 0},
		{201, "", Done, 0},
		{202, "30", Done, 0},
		{204, "", Done, 0},
		{299, "", Done, 0},
		{300, "", Park, 0},
		{301, "", Park, 0},
		{304, "", Park, 0},
		{308, "", Park, 0},
		{400, "", Park, 0},
		{401, "", Park, 0},
		{404, "5", Park, 0},
		{408, "", Pause, 0},
		{409, "", Park, 0},
		{410, "", Park, 0},
		{413, "", Park, 0},
		{422, "", Park, 0},
		{425, "", Pause, 0},
		{429, "", Pause, 0},
		{429, "7", Pause, 7 * time.Second},
		{429, "0.5", Pause, 500 * time.Millisecond},
		{429, "-1", Pause, 0},
		{429, "NaN", Pause, 0},
		{429, "soon", Pause, 0},
		{429, "1e300", Pause, time.Hour},
		{499, "", Park, 0},
		{500, "60", Retry, 0},
		{501, "", Retry, 0},
		{502, "", Pause, 0},
		{503, "", Pause, 0},
		{503, "86400", Pause, time.Hour},
		{503, "Sun, 22 Nov 2026 12:00:30 GMT", Pause, 30 * time.Second},
		{503, "Sun, 22 Nov 2026 11:00:00 GMT", Pause, 0},
		{503, "Mon, 23 Nov 2026 12:00:00 GMT", Pause, time.Hour},
		{504, "", Pause, 0},
		{505, "", Retry, 0},
		{599, "", Retry, 0},
		{600, "", Retry, 0},
	} {
		h := http.Header{}
		if row.retryAfter != "" {
			h.Set("Retry-After", row.retryAfter)
		}
		v := judge(row.status, h, now)
		if v.Action != row.want || v.After != row.after || v.Status != row.status || !strings.HasPrefix(v.Reason, strconv.Itoa(row.status)) {
			t.Errorf("%d with Retry-After %q: got %+v, want %s after %s", row.status, row.retryAfter, v, row.want, row.after)
		}
	}
}

// primary is a server that remembers what it gets.
type primary struct {
	*httptest.Server
	got chan *http.Request
}

func newPrimary(t *testing.T, answer http.HandlerFunc) primary {
	t.Helper()
	p := primary{got: make(chan *http.Request, 100)}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		p.got <- r
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func captured() *envelope.Request {
	return &envelope.Request{
		ID: "01a20262-fead-745d-a0dd-93831abf4e21", Method: "PUT", Target: "/orders//4%2f2?x=1&x", Host: "shop.example.com", Scheme: "https",
		ReceivedAt: time.Date(2026, 11, 22, 8, 32, 51, 885177639, time.UTC),
		Header:     http.Header{"X-Tag": {"a", "b"}, "Authorization": {"Bearer the-client's"}, "Connection": {"close"}},
		Body:       []byte(`{"order":42}`),
	}
}

// TestReplay holds what the primary gets: the client's request, and who it is from.
func TestReplay(t *testing.T) {
	t.Parallel()
	p := newPrimary(t, nil)
	c := newClient(t, Options{URL: p.URL + "/v2/"})
	if v := c.Send(context.Background(), captured(), 3); v.Action != Done || v.Status != 200 {
		t.Fatalf("got %+v", v)
	}
	r := <-p.got
	if r.Method != "PUT" || r.RequestURI != "/v2/orders//4%2f2?x=1&x" || r.Host != strings.TrimPrefix(p.URL, "http://") {
		t.Errorf("got %s %s of %s", r.Method, r.RequestURI, r.Host)
	}
	if body, _ := io.ReadAll(r.Body); string(body) != `{"order":42}` {
		t.Errorf("body: got %q", body)
	}
	want := http.Header{
		"X-Tag": {"a", "b"}, "Authorization": {"Bearer the-client's"}, "Content-Length": {"12"},
		"Idempotency-Key": {"01a20262-fead-745d-a0dd-93831abf4e21"}, "Fallback-Id": {"01a20262-fead-745d-a0dd-93831abf4e21"},
		"Fallback-Attempt": {"3"}, "Fallback-Received-At": {"2026-11-22T08:32:51.885177639Z"}, "X-Forwarded-Host": {"shop.example.com"},
	}
	if diff := cmp.Diff(want, r.Header); diff != "" {
		t.Errorf("headers, -want +got:\n%s", diff)
	}
}

// TestClientsOwnHeaders holds that a client's key and forwarded host are passed on, and that no client speaks for us.
func TestClientsOwnHeaders(t *testing.T) {
	t.Parallel()
	p := newPrimary(t, nil)
	c := newClient(t, Options{URL: p.URL})
	request := captured()
	request.Header = http.Header{
		"Idempotency-Key": {"mine"}, "X-Forwarded-Host": {"public.example.com"}, "Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		"Fallback-Id": {"forged"}, "Fallback-Attempt": {"9"}, "Fallback-Received-At": {"forged"}, "Fallback-Signature": {"forged"},
	}
	c.Send(context.Background(), request, 1)
	h := (<-p.got).Header
	for name, want := range map[string]string{
		"Idempotency-Key": "mine", "X-Forwarded-Host": "public.example.com", "Fallback-Id": request.ID, "Fallback-Attempt": "1",
		"Fallback-Received-At": "2026-11-22T08:32:51.885177639Z", "Fallback-Signature": "",
		"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// TestForeign holds that a message of another program, with neither id nor time, gets no empty headers.
func TestForeign(t *testing.T) {
	t.Parallel()
	p := newPrimary(t, nil)
	c := newClient(t, Options{URL: p.URL})
	c.Send(context.Background(), &envelope.Request{Method: "POST", Target: "/", Header: http.Header{}, Body: []byte("x")}, 1)
	h := (<-p.got).Header
	for _, name := range []string{"Idempotency-Key", "Fallback-Id", "Fallback-Received-At", "X-Forwarded-Host"} {
		if v, ok := h[name]; ok {
			t.Errorf("%s: got %q, want none", name, v)
		}
	}
}

// TestSignature holds that a primary can check a replay with a library of Standard Webhooks, and that id, time received
// and body are what is signed.
func TestSignature(t *testing.T) {
	t.Parallel()
	const secret = "whsec_ZmFsbGJhY2stdGVzdC1zZWNyZXQ="
	p := newPrimary(t, nil)
	c := newClient(t, Options{URL: p.URL, Secret: secret})
	c.Send(context.Background(), captured(), 1)
	r := <-p.got
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(id, received, body string) error {
		at, err := time.Parse(time.RFC3339Nano, received)
		if err != nil {
			t.Fatal(err)
		}
		return verifier.VerifyIgnoringTimestamp([]byte(body), http.Header{
			"Webhook-Id": {id}, "Webhook-Timestamp": {strconv.FormatInt(at.Unix(), 10)}, "Webhook-Signature": {r.Header.Get(HeaderSignature)},
		})
	}
	id, received := r.Header.Get(HeaderID), r.Header.Get(HeaderReceivedAt)
	if err := verify(id, received, `{"order":42}`); err != nil {
		t.Errorf("the signature is not good: %v", err)
	}
	for name, err := range map[string]error{
		"another id": verify(id+"x", received, `{"order":42}`), "another time": verify(id, "2026-11-22T08:32:52Z", `{"order":42}`),
		"another body": verify(id, received, `{"order":43}`),
	} {
		if err == nil {
			t.Errorf("%s: the signature is good", name)
		}
	}
}

// TestNoAnswer holds the verdicts on a primary that gives none.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	hang := newPrimary(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	cut := newPrimary(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	for _, row := range []struct {
		name, url string
		want      Action
		reason    string
	}{
		{"hangs", hang.URL, Retry, "no answer within 100ms"},
		{"breaks the connection", cut.URL, Pause, "no connection: EOF"},
		{"is not there", "http://" + ln.Addr().String(), Pause, "no connection: connect: connection refused"},
		{"has no address", "http://primary.invalid", Pause, "no connection: the host name is not found"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			timeout := 100 * time.Millisecond
			if row.want == Pause {
				timeout = 10 * time.Second
			}
			c := newClient(t, Options{URL: row.url, Timeout: timeout})
			if v := c.Send(context.Background(), captured(), 1); v.Action != row.want || v.Reason != row.reason || v.Status != 0 {
				t.Errorf("got %+v, want %s because of %q", v, row.want, row.reason)
			}
		})
	}
	t.Run("the drain ends meanwhile", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if v := newClient(t, Options{URL: hang.URL}).Send(ctx, captured(), 1); v.Action != Pause {
			t.Errorf("got %+v", v)
		}
	})
}

// TestRedirect holds that a redirect is not followed.
func TestRedirect(t *testing.T) {
	t.Parallel()
	p := newPrimary(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) })
	if v := newClient(t, Options{URL: p.URL}).Send(context.Background(), captured(), 1); v.Action != Park || v.Status != 302 {
		t.Errorf("got %+v", v)
	}
	if n := len(p.got); n != 1 {
		t.Errorf("the primary got %d requests, want 1", n)
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	var status atomic.Int64
	p := newPrimary(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "9")
		w.WriteHeader(int(status.Load()))
	})
	c := newClient(t, Options{URL: p.URL + "/v2", ProbePath: "/health?deep=1"})
	for _, row := range []struct {
		status int
		alive  bool
		after  time.Duration
	}{
		{200, true, 0}, {301, true, 0}, {401, true, 0}, {404, true, 0}, {429, true, 0},
		{500, false, 9 * time.Second}, {503, false, 9 * time.Second},
	} {
		status.Store(int64(row.status))
		alive, v := c.Probe(context.Background())
		if alive != row.alive || v.After != row.after {
			t.Errorf("%d: got alive %v, %+v", row.status, alive, v)
		}
		if r := <-p.got; r.Method != "GET" || r.RequestURI != "/v2/health?deep=1" {
			t.Errorf("the probe is %s %s", r.Method, r.RequestURI)
		}
	}
	p.Close()
	if alive, v := c.Probe(context.Background()); alive || v.Reason == "" || strings.Contains(v.Reason, mustHost(p.URL)) {
		t.Errorf("a primary that is not there: got alive %v, %+v", alive, v)
	}
}

func mustHost(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		panic(err)
	}
	return u.Host
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{
		{URL: ""}, {URL: "api.example.com"}, {URL: "ftp://api.example.com"}, {URL: "http://user:geheim@ exa mple/"},
		{URL: "http://api.example.com", Secret: "whsec_geheim!"},
	} {
		if _, err := New(o); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%+v: got %v", o, err)
		}
	}
}
