package target

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
		{300, "", Refuse, 0},
		{301, "", Refuse, 0},
		{304, "", Refuse, 0},
		{308, "", Refuse, 0},
		{400, "", Reject, 0},
		{401, "", Refuse, 0},
		{404, "5", Pause, 5 * time.Second},
		{407, "", Refuse, 0},
		{408, "", Pause, 0},
		{409, "", Reject, 0},
		{410, "", Reject, 0},
		{413, "", Reject, 0},
		{422, "", Reject, 0},
		{425, "", Pause, 0},
		{413, "30", Pause, 30 * time.Second},
		{303, "1", Pause, time.Second},
		{409, "3", Pause, 3 * time.Second},
		{508, "", Refuse, 0},
		{429, "", Pause, 0},
		{429, "7", Pause, 7 * time.Second},
		{429, "0.5", Pause, 500 * time.Millisecond},
		{429, "-1", Pause, 0},
		{429, "NaN", Pause, 0},
		{429, "soon", Pause, 0},
		{429, "1e300", Pause, time.Hour},
		{499, "", Refuse, 0},
		{500, "60", Pause, time.Minute},
		{501, "", Fail, 0},
		{101, "", Fail, 0},
		{502, "", Pause, 0},
		{503, "", Pause, 0},
		{503, "86400", Pause, time.Hour},
		{503, "Sun, 22 Nov 2026 12:00:30 GMT", Pause, 30 * time.Second},
		{503, "Sun, 22 Nov 2026 11:00:00 GMT", Pause, 0},
		{503, "Mon, 23 Nov 2026 12:00:00 GMT", Pause, time.Hour},
		{504, "", Pause, 0},
		{505, "", Fail, 0},
		{507, "", Pause, 0},
		{509, "", Pause, 0},
		{511, "", Pause, 0},
		{519, "", Fail, 0},
		{520, "", Pause, 0},
		{522, "7", Pause, 7 * time.Second},
		{525, "", Pause, 0},
		{527, "", Pause, 0},
		{528, "", Fail, 0},
		{529, "", Pause, 0},
		{530, "", Pause, 0},
		{561, "", Pause, 0},
		{598, "", Pause, 0},
		{599, "", Pause, 0},
		{600, "", Fail, 0},
	} {
		h := http.Header{}
		if row.retryAfter != "" {
			h.Set("Retry-After", row.retryAfter)
		}
		v := judge(row.status, h, now)
		if v.Action != row.want || v.After != row.after || v.Status != row.status ||
			!strings.HasPrefix(v.Reason, strconv.Itoa(row.status)) {
			t.Errorf("%d with Retry-After %q: got %+v, want %s after %s", row.status, row.retryAfter, v, row.want,
				row.after)
		}
	}
}

// TestRetryAfterDate holds that a date is of the clock that answered: ours may go wrong by an hour.
func TestRetryAfterDate(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC) // an hour fast
	for _, row := range []struct {
		date, retryAfter string
		want             time.Duration
	}{
		{"Sun, 22 Nov 2026 12:00:00 GMT", "Sun, 22 Nov 2026 12:00:30 GMT", 30 * time.Second},
		{"Sun, 22 Nov 2026 12:00:00 GMT", "Sun, 22 Nov 2026 11:59:00 GMT", 0},
		{"Sun, 22 Nov 2026 12:00:00 GMT", "20", 20 * time.Second},
		{"yesterday", "Sun, 22 Nov 2026 13:00:05 GMT", 5 * time.Second},
		{"", "Sun, 22 Nov 2026 13:00:05 GMT", 5 * time.Second},
	} {
		h := http.Header{"Date": {row.date}, "Retry-After": {row.retryAfter}}
		if v := judge(503, h, now); v.After != row.want {
			t.Errorf("%q with Date %q: got %s, want %s", row.retryAfter, row.date, v.After, row.want)
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
		ID: "01a20262-fead-745d-a0dd-93831abf4e21", Method: "PUT", Target: "/orders//4%2f2?x=1&x",
		Host: "shop.example.com", Scheme: "https", Remote: "203.0.113.7:51234", Prefix: "/fallback",
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
	if v := c.Send(context.Background(), captured(), Try{Attempt: 3, Redelivered: 2}); v.Action != Done || v.Status != 200 {
		t.Fatalf("got %+v", v)
	}
	r := <-p.got
	if r.Method != "PUT" || r.RequestURI != "/v2/orders//4%2f2?x=1&x" ||
		r.Host != strings.TrimPrefix(p.URL, "http://") {
		t.Errorf("got %s %s of %s", r.Method, r.RequestURI, r.Host)
	}
	if body, _ := io.ReadAll(r.Body); string(body) != `{"order":42}` {
		t.Errorf("body: got %q", body)
	}
	want := http.Header{
		"X-Tag": {"a", "b"}, "Authorization": {"Bearer the-client's"}, "Content-Length": {"12"},
		"Idempotency-Key":  {"01a20262-fead-745d-a0dd-93831abf4e21"},
		"Fallback-Id":      {"01a20262-fead-745d-a0dd-93831abf4e21"},
		"Fallback-Attempt": {"3"}, "Fallback-Redelivered": {"2"}, "Fallback-Received-At": {"2026-11-22T08:32:51.885177639Z"},
		"X-Forwarded-For": {"203.0.113.7"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"shop.example.com"},
		"X-Forwarded-Prefix": {"/fallback"},
	}
	if diff := cmp.Diff(want, r.Header); diff != "" {
		t.Errorf("headers, -want +got:\n%s", diff)
	}
}

// TestClientsOwnHeaders holds that a client's key, and what a proxy has told, are passed on, and that no client speaks
// for us.
func TestClientsOwnHeaders(t *testing.T) {
	t.Parallel()
	p := newPrimary(t, nil)
	c := newClient(t, Options{URL: p.URL})
	request := captured()
	request.Header = http.Header{
		"Idempotency-Key": {"mine"}, "X-Forwarded-Host": {"public.example.com"},
		"X-Forwarded-For": {"192.0.2.1, 203.0.113.7"}, "X-Forwarded-Proto": {""},
		"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		"Fallback-Id": {"forged"}, "Fallback-Attempt": {"9"}, "Fallback-Received-At": {"forged"},
		"Fallback-Signature": {"forged"},
		"Fallback_id":        {"forged"}, "Fallback_Signature": {"forged"}, "Fallback-Hops": {"2"}, "Fallback_hops": {"0"},
	}
	request.Trailer = http.Header{"Fallback-Id": {"forged"}, "Fallback_signature": {"forged"}, "X-Sum": {"9"}}
	c.Send(context.Background(), request, Try{Attempt: 1})
	r := <-p.got
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(r.Trailer); got != "map[X-Sum:[9]]" {
		t.Errorf("the trailer: got %s", got)
	}
	h := r.Header
	for _, name := range []string{"Fallback_id", "Fallback_signature", "Fallback_hops"} {
		for got := range h {
			if strings.EqualFold(got, name) {
				t.Errorf("%s: got %q", got, h[got])
			}
		}
	}
	for name, want := range map[string]string{
		"Idempotency-Key": "mine", "X-Forwarded-Host": "public.example.com",
		"X-Forwarded-For":   "192.0.2.1, 203.0.113.7",
		"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/fallback", "Fallback-Id": request.ID,
		"Fallback-Attempt": "1",
		// the door's
		"Fallback-Received-At": "2026-11-22T08:32:51.885177639Z", "Fallback-Signature": "", "Fallback-Hops": "2",
		"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// TestForeign holds that a request with neither id nor time gets no empty headers, and no signature of an empty id.
func TestForeign(t *testing.T) {
	t.Parallel()
	p := newPrimary(t, nil)
	c := newClient(t, Options{URL: p.URL, Secret: "whsec_ZmFsbGJhY2stdGVzdC1zZWNyZXQ="})
	c.Send(context.Background(), &envelope.Request{Method: "POST", Target: "/", Header: http.Header{},
		Body: []byte("x")}, Try{Attempt: 1})
	h := (<-p.got).Header
	for _, name := range []string{
		"Idempotency-Key", "Fallback-Id", "Fallback-Received-At", "Fallback-Signature",
		"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Prefix",
	} {
		if v, ok := h[name]; ok {
			t.Errorf("%s: got %q, want none", name, v)
		}
	}
}

// TestCredentialsOfTheURL holds that those of the primary's URL are sent with what has none of its own.
func TestCredentialsOfTheURL(t *testing.T) {
	t.Parallel()
	p := newPrimary(t, nil)
	c := newClient(t, Options{URL: strings.Replace(p.URL, "://", "://user:geheim@", 1)})
	ours := &http.Request{Header: http.Header{}}
	ours.SetBasicAuth("user", "geheim")
	for own, want := range map[string]string{"": ours.Header.Get("Authorization"), "Bearer own": "Bearer own"} {
		r := &envelope.Request{Method: "POST", Target: "/", Header: http.Header{}}
		if own != "" {
			r.Header.Set("Authorization", own)
		}
		c.Send(t.Context(), r, Try{Attempt: 1})
		if got := (<-p.got).Header.Get("Authorization"); got != want {
			t.Errorf("with %q: got %q, want %q", own, got, want)
		}
	}
}

// TestDottedID holds that what would be signed as another request, with the boundary moved, is not signed.
func TestDottedID(t *testing.T) {
	t.Parallel()
	p := newPrimary(t, nil)
	c := newClient(t, Options{URL: p.URL, Secret: "whsec_ZmFsbGJhY2stdGVzdC1zZWNyZXQ="})
	c.Send(context.Background(), &envelope.Request{ID: "7.1795327982", Method: "POST", Target: "/", Body: []byte("x")},
		Try{Attempt: 1})
	if h := (<-p.got).Header; h.Get(envelope.HeaderID) != "7.1795327982" || h.Get(envelope.HeaderSignature) != "" {
		t.Errorf("got %v", h)
	}
}

// TestLoop holds that a door's 508 is a loop, for a replay and for a probe, both of which bear the mark, and that
// another's is not.
func TestLoop(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]bool{
		`{"type":"urn:fallback:problem:loop","title":"Loop Detected","status":508}`: true,
		`{"type":"about:blank","status":508}`:                                       false,
		"a loop of links":                                                           false,
	} {
		p := newPrimary(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get(envelope.HeaderAttempt) == "" {
				t.Errorf("%s bears no mark", r.Method)
			}
			w.WriteHeader(http.StatusLoopDetected)
			_, _ = io.WriteString(w, body)
		})
		c := newClient(t, Options{URL: p.URL})
		if v := c.Send(context.Background(), captured(), Try{Attempt: 1}); v.Action != Refuse || v.Status != 508 || v.Loop != want ||
			strings.Contains(v.Reason, "a loop: ") != want {
			t.Errorf("%s: a replay: got %+v", body, v)
		}
		if alive, v := c.Probe(context.Background()); alive || v.Loop != want ||
			strings.Contains(v.Reason, "a loop: ") != want {
			t.Errorf("%s: a probe: got %v and %+v", body, alive, v)
		}
	}
}

// TestDoorsAnswer holds that a 202 by which a door has taken the replay for a new request is a loop and no delivery,
// and that one with the id that was sent is: of a second Fallback, or of a primary that echoes it.
func TestDoorsAnswer(t *testing.T) {
	t.Parallel()
	const other = "01a20262-0000-7000-8000-000000000000"
	door := func(id string) string {
		return fmt.Sprintf(`{"id":%q,"queue":"FallbackAPIQueue","received_at":"2026-11-22T08:32:51Z"}`, id)
	}
	for _, row := range []struct {
		name     string
		status   int
		id, body string
		want     Action
	}{
		{"a door's, with an id of its own", 202, other, door(other), Refuse},
		{"a door's, with the id that was sent", 202, captured().ID, door(captured().ID), Done},
		{"a primary's, with the header only", 202, other, `{"order":42}`, Done},
		{"a primary's, with the body only", 202, "", door(other), Done},
		{"a primary's, with a long body", 202, other, strings.Repeat("x", 1<<20), Done},
		{"a 200", 200, other, door(other), Done},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			p := newPrimary(t, func(w http.ResponseWriter, _ *http.Request) {
				if row.id != "" {
					w.Header().Set("Fallback-Id", row.id)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(row.status)
				_, _ = io.WriteString(w, row.body)
			})
			v := newClient(t, Options{URL: p.URL}).Send(context.Background(), captured(), Try{Attempt: 1})
			if v.Action != row.want || v.Status != row.status || v.Loop != (row.want == Refuse) {
				t.Errorf("got %+v, want %s", v, row.want)
			}
		})
	}
}

// TestSignature holds that a primary can check a replay with a library of Standard Webhooks, and that id, time received
// and body are what is signed.
func TestSignature(t *testing.T) {
	t.Parallel()
	const secret = "whsec_ZmFsbGJhY2stdGVzdC1zZWNyZXQ="
	p := newPrimary(t, nil)
	c := newClient(t, Options{URL: p.URL, Secret: secret})
	c.Send(context.Background(), captured(), Try{Attempt: 1})
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
			"Webhook-Id": {id}, "Webhook-Timestamp": {strconv.FormatInt(at.Unix(), 10)},
			"Webhook-Signature": {r.Header.Get(envelope.HeaderSignature)},
		})
	}
	id, received := r.Header.Get(envelope.HeaderID), r.Header.Get(envelope.HeaderReceivedAt)
	if err := verify(id, received, `{"order":42}`); err != nil {
		t.Errorf("the signature is not good: %v", err)
	}
	for name, err := range map[string]error{
		"another id":   verify(id+"x", received, `{"order":42}`),
		"another time": verify(id, "2026-11-22T08:32:52Z", `{"order":42}`),
		"another body": verify(id, received, `{"order":43}`),
	} {
		if err == nil {
			t.Errorf("%s: the signature is good", name)
		}
	}
}

// TestSignatureWithoutTime holds that a message of another program which does not say when it came can be checked as
// well.
func TestSignatureWithoutTime(t *testing.T) {
	t.Parallel()
	const secret = "whsec_ZmFsbGJhY2stdGVzdC1zZWNyZXQ="
	p := newPrimary(t, nil)
	c := newClient(t, Options{URL: p.URL, Secret: secret})
	c.Send(t.Context(), &envelope.Request{ID: "7", Method: "POST", Target: "/", Header: http.Header{},
		Body: []byte("x")}, Try{Attempt: 1})
	h := (<-p.got).Header
	at, err := time.Parse(time.RFC3339Nano, h.Get(envelope.HeaderReceivedAt))
	if err != nil || time.Since(at) > time.Minute {
		t.Fatalf("%s: got %q", envelope.HeaderReceivedAt, h.Get(envelope.HeaderReceivedAt))
	}
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := verifier.Verify([]byte("x"), http.Header{
		"Webhook-Id": {"7"}, "Webhook-Timestamp": {strconv.FormatInt(at.Unix(), 10)},
		"Webhook-Signature": {h.Get(envelope.HeaderSignature)},
	}); err != nil {
		t.Error(err)
	}
}

// TestNoAnswer holds the verdicts on a primary that gives none.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
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
		{"breaks the connection", cut.URL, Pause, "no answer: EOF"},
		{"is not there", "http://" + ln.Addr().String(), Pause, "no connection: connect: connection refused"},
		{"has no address", "http://primary.invalid", Pause, "no connection: the host name is not found"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, Options{URL: row.url, Timeout: time.Minute})
			if v := c.Send(context.Background(), captured(), Try{Attempt: 1}); v.Action != row.want || v.Reason != row.reason ||
				v.Status != 0 {
				t.Errorf("got %+v, want %s because of %q", v, row.want, row.reason)
			}
		})
	}
	hangs := func(_ int, _ *http.Request, conn net.Conn) bool { // until the client leaves
		_, _ = conn.Read(make([]byte, 1))
		return false
	}
	t.Run("hangs", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			begin, c := time.Now(), pipedClient(t, Options{Timeout: time.Second}, hangs)
			v := c.Send(context.Background(), captured(), Try{Attempt: 1})
			if v.Action != Fail || v.Reason != "no answer within 1s" || time.Since(begin) != time.Second {
				t.Errorf("got %+v after %s", v, time.Since(begin))
			}
		})
	})
	t.Run("a probe gets no connection", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			begin, c := time.Now(), pipedClient(t, Options{}, hangs)
			c.transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			alive, v := c.Probe(context.Background())
			if alive || v.Action != Pause || v.Reason != "no connection within 5s" || time.Since(begin) != probeTimeout {
				t.Errorf("got %v, %+v after %s", alive, v, time.Since(begin))
			}
		})
	})
	t.Run("the drain ends meanwhile", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			v := pipedClient(t, Options{}, hangs).Send(ctx, captured(), Try{Attempt: 1})
			if v.Action != Pause || v.Reason != "the drain ended before the answer came" {
				t.Errorf("got %+v", v)
			}
		})
	})
}

// TestReasonWithoutSecrets holds that a reason says what is wrong, and with whom, and shows nothing of the URL's user
// and query, of the proxy's, or of a request that comes back in place of an answer.
func TestReasonWithoutSecrets(t *testing.T) {
	t.Parallel()
	secure := httptest.NewUnstartedServer(nil)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	trusted := x509.NewCertPool()
	trusted.AddCert(secure.Certificate())
	refuses := newPrimary(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusProxyAuthRequired) })
	says := func(answer string) string {
		return newWirePrimary(t, func(_ int, r *http.Request, conn net.Conn) bool {
			_, _ = io.WriteString(conn, strings.ReplaceAll(answer, "REQUEST", r.Method+" "+r.RequestURI))
			return false
		}).Addr().String()
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := ln.Addr().String()
	ln.Close()
	const noAnswer = "what came is no answer that HTTP allows"
	for _, row := range []struct{ name, scheme, host, proxy, want string }{
		{"unknown authority", "https", secure.Listener.Addr().String(), "",
			"tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		{"another host", "https", strings.Replace(secure.Listener.Addr().String(), "127.0.0.1", "localhost", 1), "",
			"tls: failed to verify certificate: x509: certificate is valid for example.com, *.example.com, not localhost"},
		{"it speaks no TLS", "https", mustHost(refuses.URL), "", "what came is no TLS: http:// instead of https://?"},
		{"it echoes", "http", says("REQUEST HTTP/1.1\r\n\r\n"), "", noAnswer},
		{"it echoes in a header", "http", says("HTTP/1.1 200 OK\r\nREQUEST\r\n\r\n"), "", noAnswer},
		{"the proxy is gone", "http", "api.example.com", "http://user:geheim@" + gone,
			"the proxy: connect: connection refused"},
		{"the proxy is gone, TLS", "https", "api.example.com", "http://user:geheim@" + gone,
			"the proxy: connect: connection refused"},
		{"the SOCKS proxy is gone", "https", "api.example.com", "socks5://user:geheim@" + gone,
			"the proxy: connect: connection refused"},
		{"the proxy has no address", "https", "api.example.com", "http://user:geheim@proxy.invalid",
			"the proxy: the host name is not found"},
		{"the proxy is not trusted", "https", "api.example.com", "https://user:geheim@" +
			secure.Listener.Addr().String(), "the proxy: tls: failed to verify certificate: x509: certificate signed by " +
			"unknown authority"},
		{"the proxy refuses", "https", "api.example.com", "http://user:geheim@" + mustHost(refuses.URL),
			"the proxy answers 407 Proxy Authentication Required"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, Options{URL: row.scheme + "://user:geheim@" + row.host + "/x?key=geheim"})
			transport := c.transport
			if row.name == "another host" {
				transport.TLSClientConfig = &tls.Config{RootCAs: trusted}
			}
			if row.proxy != "" {
				proxy, err := url.Parse(row.proxy)
				if err != nil {
					t.Fatal(err)
				}
				transport.Proxy = http.ProxyURL(proxy)
			}
			request := captured()
			request.Target = "/orders?key=geheim"
			want := "no connection: " + row.want
			if strings.HasPrefix(row.name, "it echoes") {
				want = "no answer: " + row.want
			}
			if v := c.Send(t.Context(), request, Try{Attempt: 1}); v.Action != Pause || v.Reason != want {
				t.Errorf("got %+v, want %q", v, want)
			}
			if alive, v := c.Probe(t.Context()); alive || v.Reason != want {
				t.Errorf("the probe: got %v, %+v", alive, v)
			}
		})
	}
}

// TestRedirect holds that a redirect is not followed.
func TestRedirect(t *testing.T) {
	t.Parallel()
	p := newPrimary(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) })
	if v := newClient(t, Options{URL: p.URL}).Send(context.Background(), captured(), Try{Attempt: 1}); v.Action != Refuse ||
		v.Status != 302 {
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
	if alive, v := c.Probe(context.Background()); alive || v.Reason == "" ||
		strings.Contains(v.Reason, mustHost(p.URL)) {
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
