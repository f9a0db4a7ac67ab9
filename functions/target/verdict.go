// Package target sends captured requests to the primary, the API that they were meant for, and judges its answers.
package target

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Action is what is to become of a request after an attempt to replay it.
type Action string

const (
	// Done: the primary has it.
	Done Action = "done"
	// Retry: it failed by itself. It is tried again later, and its attempts are counted.
	Retry Action = "retry"
	// Park: the primary will not take it, now or later.
	Park Action = "park"
	// Pause: the primary is not up to it. Nothing more is sent for a while, and the attempt does not count.
	Pause Action = "pause"
)

// Verdict is what an attempt came to.
type Verdict struct {
	Action Action
	// Status is the answer's; 0 when there was none.
	Status int
	// After is for how long the primary asks to be left alone (Retry-After), an hour at most; 0 when it does not say.
	After time.Duration
	// Reason is for people, and holds nothing of the request, or of the address but a host name that a certificate is not for.
	Reason string
}

// rule is a row of the table. The first that holds the status applies.
type rule struct {
	from, to int
	action   Action
	about    string
}

var rules = []rule{
	{200, 299, Done, "the primary has it"},
	{407, 407, Pause, "a proxy on the way wants credentials: set them in HTTP_PROXY"},
	{408, 408, Pause, "the primary was too slow to read it"},
	{425, 425, Pause, "too early"},
	{429, 429, Pause, "too many requests"},
	{502, 504, Pause, "the primary, or what it depends on, is away or overloaded"},
	{508, 508, Pause, "a loop: a door of Fallback refuses the replay"},
	{500, 599, Retry, "the primary failed at it"},
	{300, 399, Park, "redirects are not followed: set FALLBACK_TARGET_URL to where they lead"},
	{400, 499, Park, "the primary will not take it"},
}

// loopReason is what a 508 most likely means. It is no matter of the request: whoever answers it, the way leads in a circle.
const loopReason = "508, a loop: the target leads back to a door of Fallback; set FALLBACK_TARGET_URL to the API itself, around whatever fails over " +
	"(for a second Fallback, its FALLBACK_ACCEPT_REPLAYS must be FALLBACK_REPLAY_SECRET)"

// judge is the verdict on an answer.
func judge(status int, h http.Header, now time.Time) Verdict {
	v := Verdict{Action: Retry, Status: status}
	for _, r := range rules {
		if r.from <= status && status <= r.to {
			v.Action = r.action
			break
		}
	}
	v.Reason = strings.TrimSpace(fmt.Sprint(status, " ", http.StatusText(status)))
	if v.Action == Pause {
		v.After = retryAfter(h, now)
	}
	if status == http.StatusLoopDetected {
		v.Reason = loopReason
	}
	return v
}

// longestPause bounds what a primary may ask for.
const longestPause = time.Hour

// retryAfter reads the header in both its forms, seconds and a date (RFC 9110, 10.2.3); 0 if there is none to be read.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseFloat(value, 64); err == nil && seconds >= 0 {
		return time.Duration(min(seconds, longestPause.Seconds()) * float64(time.Second))
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), longestPause)
	}
	return 0
}

// Markdown is the table of verdicts for the README.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| the primary | the request | why |\n| --- | --- | --- |\n")
	for _, r := range rules {
		status := fmt.Sprint(r.from)
		switch {
		case r.from%100 == 0 && r.to == r.from+99:
			status = fmt.Sprintf("%dxx", r.from/100)
		case r.to > r.from:
			status = fmt.Sprintf("%d–%d", r.from, r.to)
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", status, r.action, r.about)
	}
	fmt.Fprintf(&b, "| cannot be reached, or breaks the connection | %s | it is away |\n", Pause)
	fmt.Fprintf(&b, "| does not answer within FALLBACK_TARGET_TIMEOUT | %s | it may hang on this one |\n", Retry)
	fmt.Fprintf(&b, "| is not asked | %s | the message cannot be read, or is no request that HTTP allows |\n", Park)
	return b.String()
}
