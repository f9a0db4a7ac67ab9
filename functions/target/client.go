package target

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
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
	// Timeout bounds an attempt, from its start to the end of the answer's headers; 30 s if it is not set.
	Timeout time.Duration
	// Secret, if set, signs each replay in the form of Standard Webhooks, over the id, the seconds of the time received
	// (not sent: the primary is to trust that) and the body. It is base64 after "whsec_".
	Secret string
	// Connections is how many are kept open between requests; 1 at least.
	Connections int
}

// Client sends requests to one primary. It is safe for concurrent use.
type Client struct {
	options Options
	base    *url.URL
	probe   string
	proxied bool // plain HTTP by a proxy, which wants the whole URL; HTTPS goes through a tunnel
	signer  *standardwebhooks.Webhook
	// transport is asked without an [http.Client]: a redirect is an answer. Followed, a POST would arrive as a GET, or
	// elsewhere.
	transport *http.Transport
}

const (
	// probeTimeout bounds a probe.
	probeTimeout = 5 * time.Second
	// discardTimeout bounds the reading of an answer's body, which nobody needs.
	discardTimeout = time.Second
	// mostHead bounds the head of an answer, in bytes. A field of four bytes takes some hundred in memory, and as many
	// answers come at the same time as requests are in flight.
	mostHead = 32 << 10
)

// New returns a client, which goes by a proxy if HTTP_PROXY, HTTPS_PROXY and NO_PROXY say so. The error shows no
// secret.
func New(o Options) (*Client, error) {
	base, err := url.Parse(o.URL)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return nil, errors.New("FALLBACK_TARGET_URL: not an HTTP URL; for example https://api.example.com")
	}
	c := &Client{options: o, base: base}
	probe, err := ProbeURL(base, o.ProbePath)
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
	c.transport = &http.Transport{
		Proxy:                 http.ProxyURL(proxy),
		DialContext:           (&net.Dialer{Timeout: probeTimeout}).DialContext,
		TLSHandshakeTimeout:   probeTimeout,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       time.Minute,
		MaxIdleConnsPerHost:   max(o.Connections, 1),

		MaxResponseHeaderBytes: mostHead,
		DisableCompression:     true, // it would add a header that the client did not send
		ForceAttemptHTTP2:      true,
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
			if answer.StatusCode != http.StatusOK { // net/http would not say whose answer it is
				return fmt.Errorf("the proxy answers %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
			}
			return nil
		},
	}
	return c, nil
}

// Close ends the idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Try is one of the replays of a request.
type Try struct {
	Attempt     int // from 1
	Redelivered int // how often the broker had handed it over before, and not heard what became of it
}

// Send replays r, as the attempt of the given number, and judges the answer.
func (c *Client) Send(ctx context.Context, r *envelope.Request, try Try) Verdict {
	timed, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	var tried, connected atomic.Bool
	out, err := r.HTTP(httptrace.WithClientTrace(timed, &httptrace.ClientTrace{
		GetConn: func(string) { tried.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	}), c.base)
	if err != nil {
		return Verdict{Action: Reject, Reason: "it cannot be sent: " + err.Error()}
	}
	if path := cmp.Or(out.URL.Opaque, out.URL.RawPath); c.proxied && !strings.HasPrefix(out.URL.Opaque, "//") {
		out.URL.Opaque = "//" + c.base.Host + path // a proxy wants the whole URL (RFC 9112, 3.2.2)
	}
	deleteOurs(out.Trailer)
	c.addHeaders(out.Header, r, try)
	sendOnce(out.Header)
	answer, err := c.ask(out)
	switch {
	case err == nil:
		start := discard(answer, cancel)
		if isLoop(answer, start, r.ID) {
			return loop(answer.StatusCode)
		}
		return judge(answer.StatusCode, answer.Header, time.Now())
	case !tried.Load() && timed.Err() == nil: // net/http has refused it, whatever the primary is up to
		return Verdict{Action: Reject, Reason: "it cannot be sent: its method, or a header's name or value, is none " +
			"that HTTP allows"}
	}
	return c.judgeError(ctx, timed, connected.Load(), c.options.Timeout, err)
}

// ask sends a request, with the credentials of the primary's URL if it has none.
func (c *Client) ask(out *http.Request) (*http.Response, error) {
	if user := c.base.User; user != nil && out.Header.Get("Authorization") == "" {
		password, _ := user.Password()
		out.SetBasicAuth(user.Username(), password)
	}
	return c.transport.RoundTrip(out)
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
		return Verdict{Action: Fail, Reason: fmt.Sprintf("no answer within %s", timeout)}
	case timed.Err() != nil:
		return Verdict{Action: Pause, Unreachable: true, Reason: fmt.Sprintf("no connection within %s", timeout)}
	case isTooLarge(err):
		return Verdict{Action: Fail, Reason: fmt.Sprintf("the head of the answer is larger than %d KiB", mostHead>>10)}
	}
	if !connected {
		return Verdict{Action: Pause, Unreachable: true, Reason: "no connection: " + withoutAddress(err)}
	}
	return Verdict{Action: Pause, Reason: "no answer: " + withoutAddress(err)}
}

// isTooLarge says that the answer's head was over mostHead: net/http has no error of its own for that, with HTTP/1 and
// HTTP/2.
func isTooLarge(err error) bool {
	text := err.Error()
	return strings.Contains(text, "response headers exceeded") || strings.Contains(text, "response header list larger")
}

// withoutAddress is an error of the network without the addresses before it, and without what came in place of an
// answer: that may be anything, the request too.
func withoutAddress(err error) string {
	var op *net.OpError
	var whose string
	for errors.As(err, &op) {
		if err = op.Err; op.Op == "proxyconnect" {
			whose = "the proxy: "
		}
	}
	var dns *net.DNSError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &record):
		return whose + "what came is no TLS: http:// instead of https://?"
	case errors.As(err, &dns):
		return whose + "the host name is not found"
	case strings.Contains(err.Error(), "transport connection broken: "):
		return "what came is no answer that HTTP allows"
	}
	return whose + err.Error()
}
