package target

import (
	"context"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"fallback/functions/envelope"
)

// ProbeURL is where a probe goes: to a path behind the base URL's own. The error says that the path is none.
func ProbeURL(base *url.URL, path string) (*url.URL, error) {
	return base.Parse(strings.TrimSuffix(base.EscapedPath(), "/") + "/" + strings.TrimPrefix(path, "/"))
}

// Probe asks whether the primary is alive: any answer under 500 says so. Otherwise the verdict's Reason says what is
// wrong, and After for how long it asks to be left alone.
func (c *Client) Probe(ctx context.Context) (alive bool, v Verdict) {
	timeout := min(probeTimeout, c.options.Timeout)
	timed, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var connected atomic.Bool
	traced := httptrace.WithClientTrace(timed, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	request, err := http.NewRequestWithContext(traced, http.MethodGet, c.probe, nil)
	if err != nil {
		return false, Verdict{Action: Pause, Reason: "the probe's URL is not one"}
	}
	request.Header.Set("User-Agent", envelope.ProbeUserAgent)
	request.Header.Set(envelope.HeaderAttempt, "0") // a door refuses it, so that it is not taken for the primary
	answer, err := c.ask(request)
	if err != nil {
		v = c.judgeError(ctx, timed, connected.Load(), timeout, err)
		v.Action = Pause
		return false, v
	}
	start := discard(answer, cancel)
	if isLoop(answer, start, "") {
		return false, loop(answer.StatusCode)
	}
	if answer.StatusCode < http.StatusInternalServerError {
		return true, Verdict{Action: Done, Status: answer.StatusCode}
	}
	v = judge(answer.StatusCode, answer.Header, time.Now())
	return false, v
}
