package target

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"fallback/functions/envelope"
)

// Options are what a [Client] needs.
type Options struct {
	// URL is the primary's base URL; requests go to it with their own path and query behind its path.
	URL string
	// ProbePath is asked for to see whether the primary is alive; "/" if it is not set.
	ProbePath string
	// Timeout bounds an attempt, from its start to the end of the answer's headers.
	Timeout time.Duration
	// Secret, if set, signs each replay in the form of Standard Webhooks, over the id, the seconds of the time received
	// (not sent: the primary is to trust that) and the body. It is base64 after "whsec_".
	Secret string
	// Connections is how many are kept open between requests.
	Connections int
}

// Client sends requests to one primary. It is safe for concurrent use.
type Client struct {
	options Options
	base    *url.URL
	probe   string
	proxied bool // requests go to a proxy, and not through it
	signer  *standardwebhooks.Webhook
	http    *http.Client
}

const (
	// probeTimeout bounds a probe.
	probeTimeout = 5 * time.Second
	// discardTimeout bounds the reading of an answer's body, which nobody needs.
	discardTimeout = time.Second
)

// New returns a client, which goes by a proxy if HTTP_PROXY, HTTPS_PROXY and NO_PROXY say so. The error shows no secret.
func New(o Options) (*Client, error) {
	base, err := url.Parse(o.URL)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return nil, errors.New("FALLBACK_TARGET_URL: not an HTTP URL; for example https://api.example.com")
	}
	c := &Client{options: o, base: base}
	probe, err := base.Parse(strings.TrimSuffix(base.EscapedPath(), "/") + "/" + strings.TrimPrefix(o.ProbePath, "/"))
	if err != nil {
		return nil, fmt.Errorf("FALLBACK_PROBE_PATH: %q is not a path", o.ProbePath)
	}
	c.probe = probe.String()
	if o.Secret != "" {
		if c.signer, err = standardwebhooks.NewWebhook(o.Secret); err != nil {
			return nil, errors.New("FALLBACK_REPLAY_SECRET: not base64 (whsec_...)")
		}
	}
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: base})
	if err != nil {
		return nil, errors.New("HTTP_PROXY or HTTPS_PROXY: not the URL of a proxy")
	}
	c.proxied = proxy != nil && base.Scheme == "http" && strings.HasPrefix(proxy.Scheme, "http")
	c.options.Timeout = cmp.Or(o.Timeout, 30*time.Second)
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyURL(proxy),
			DialContext:           (&net.Dialer{Timeout: probeTimeout}).DialContext,
			TLSHandshakeTimeout:   probeTimeout,
			ExpectContinueTimeout: time.Second,
			IdleConnTimeout:       time.Minute,
			MaxIdleConnsPerHost:   max(o.Connections, 1),
			DisableCompression:    true, // it would add a header that the client did not send
			ForceAttemptHTTP2:     true,
			OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
				if answer.StatusCode != http.StatusOK { // net/http would not say whose answer it is
					return fmt.Errorf("the proxy answers %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
				}
				return nil
			},
		},
		// A redirect is an answer: followed, a POST would arrive as a GET, or elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Close ends the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Send replays r, as the attempt of the given number, and judges the answer.
func (c *Client) Send(ctx context.Context, r *envelope.Request, attempt int) Verdict {
	timed, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	out, err := r.HTTP(timed, c.base)
	if err != nil {
		return Verdict{Action: Park, Reason: "it cannot be sent: " + err.Error()}
	}
	if path := cmp.Or(out.URL.Opaque, out.URL.RawPath); c.proxied && !strings.HasPrefix(out.URL.Opaque, "//") {
		out.URL.Opaque = "//" + c.base.Host + path // a proxy wants the whole URL (RFC 9112, 3.2.2)
	}
	takeOurs(out.Trailer)
	c.addHeaders(out.Header, r, attempt)
	sendOnce(out.Header)
	var tried, connected atomic.Bool
	answer, err := c.http.Do(out.WithContext(httptrace.WithClientTrace(timed, &httptrace.ClientTrace{
		GetConn: func(string) { tried.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})))
	switch {
	case err == nil:
		discard(answer.Body, cancel)
		return judge(answer.StatusCode, answer.Header, time.Now())
	case !tried.Load() && timed.Err() == nil: // net/http has refused it, whatever the primary is up to
		return Verdict{Action: Park, Reason: "it cannot be sent: its method, or a header's name or value, is none that HTTP allows"}
	}
	return c.judgeError(ctx, timed, connected.Load(), c.options.Timeout, err)
}

// sendOnce keeps net/http from sending a request again by itself when a kept connection breaks before the answer: the
// primary might get it twice in one attempt. It does so for all that have an Idempotency-Key (see [http.Transport]),
// which it looks for under that very spelling; names of headers are the same in any. What it still sends again is what
// it had written nothing of, and GET, HEAD, OPTIONS and TRACE, which are safe.
func sendOnce(h http.Header) {
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values, ok := h[name]; ok {
			delete(h, name)
			h[strings.ToLower(name)] = values
		}
	}
}

// judgeError is the verdict when there was no answer.
func (c *Client) judgeError(ctx, timed context.Context, connected bool, timeout time.Duration, err error) Verdict {
	switch {
	case ctx.Err() != nil:
		return Verdict{Action: Pause, Reason: "the drain ended before the answer came"}
	case timed.Err() != nil && connected:
		return Verdict{Action: Retry, Reason: fmt.Sprintf("no answer within %s", timeout)}
	case timed.Err() != nil:
		return Verdict{Action: Pause, Reason: fmt.Sprintf("no connection within %s", timeout)}
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the URL
	}
	return Verdict{Action: Pause, Reason: "no connection: " + withoutAddress(err)}
}

// withoutAddress is an error of the network without the addresses before it, and without what came in place of an answer:
// that may be anything, the request too.
func withoutAddress(err error) string {
	var op *net.OpError
	var whose string
	for errors.As(err, &op) {
		if err = op.Err; op.Op == "proxyconnect" {
			whose = "the proxy: "
		}
	}
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return whose + "the host name is not found"
	case strings.Contains(err.Error(), "transport connection broken: "):
		return "what came is no answer that HTTP allows"
	}
	return whose + err.Error()
}

// addHeaders adds what the drain says of a request. What another program's message says in these fields is taken off; the hops
// are the door's.
func (c *Client) addHeaders(h http.Header, r *envelope.Request, attempt int) {
	takeOurs(h)
	if hops, ok := r.Header[envelope.HeaderHops]; ok {
		h[envelope.HeaderHops] = hops
	}
	if r.ID != "" {
		h.Set(envelope.HeaderID, r.ID)
		if h.Get("Idempotency-Key") == "" {
			h.Set("Idempotency-Key", r.ID)
		}
	}
	h.Set(envelope.HeaderAttempt, strconv.Itoa(attempt))
	// With a dot in the id, the end of what is signed as the id could be moved, and with it that of the body.
	signed, received := c.signer != nil && r.ID != "" && !strings.Contains(r.ID, "."), r.ReceivedAt
	if signed && received.IsZero() { // another program's, which does not say; a signature needs a time
		received = time.Now()
	}
	if !received.IsZero() {
		h.Set(envelope.HeaderReceivedAt, received.UTC().Format(time.RFC3339Nano))
	}
	addForwarded(h, r)
	if signed {
		if signature, err := c.signer.Sign(r.ID, received, r.Body); err == nil {
			h.Set(envelope.HeaderSignature, signature)
		}
	}
}

// addForwarded says what the door knew of the request, where no proxy before it has: X-Forwarded-For, -Proto, -Host and
// -Prefix.
func addForwarded(h http.Header, r *envelope.Request) {
	from := ""
	if peer := r.Peer(); peer.IsValid() {
		from = peer.String()
	}
	known := [...]string{from, r.Scheme, r.Host, r.Prefix}
	for i, name := range [...]string{envelope.ForwardedFor, envelope.ForwardedProto, envelope.ForwardedHost, envelope.ForwardedPrefix} {
		if h.Get(name) == "" && known[i] != "" {
			h[name] = known[i : i+1 : i+1]
		}
	}
}

func takeOurs(h http.Header) {
	for name := range h {
		if envelope.IsOurs(name) {
			delete(h, name)
		}
	}
}

// discard reads what is left of an answer, so that its connection can be used again, and not more than is cheaper to
// read than to connect anew. The answer counts whether its body comes or not; cancel ends a slow one.
func discard(body io.ReadCloser, cancel context.CancelFunc) {
	timer := time.AfterFunc(discardTimeout, cancel)
	defer timer.Stop()
	_, _ = io.CopyN(io.Discard, body, 64<<10)
	_ = body.Close()
}

// Probe asks whether the primary is alive: any answer under 500 says so. Otherwise the verdict's Reason says what is
// wrong, and After for how long it asks to be left alone.
func (c *Client) Probe(ctx context.Context) (alive bool, v Verdict) {
	timeout := min(probeTimeout, c.options.Timeout)
	timed, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(timed, http.MethodGet, c.probe, nil)
	if err != nil {
		return false, Verdict{Action: Pause, Reason: "the probe's URL is not one"}
	}
	request.Header.Set("User-Agent", "fallback-probe")
	request.Header.Set(envelope.HeaderAttempt, "0") // a door refuses it, so that it is not taken for the primary
	answer, err := c.http.Do(request)
	if err != nil {
		v = c.judgeError(ctx, timed, true, timeout, err)
		v.Action = Pause
		return false, v
	}
	discard(answer.Body, cancel)
	if answer.StatusCode < http.StatusInternalServerError {
		return true, Verdict{Action: Done, Status: answer.StatusCode}
	}
	v = judge(answer.StatusCode, answer.Header, time.Now())
	v.Action, v.After = Pause, retryAfter(answer.Header, time.Now())
	return false, v
}
