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
	// Pause: not now. The primary is away or not up to it, or asks to wait. It says nothing of the request.
	Pause Action = "pause"
	// Fail: the primary failed at it.
	Fail Action = "fail"
	// Refuse: the request is not taken, because of itself or of the way that it takes to the primary.
	Refuse Action = "refuse"
	// Reject: the primary will not take this request, now or later.
	Reject Action = "reject"
)

// Verdict is what an attempt came to.
type Verdict struct {
	Action Action
	// Status is the answer's; 0 when there was none.
	Status int
	// After is for how long the primary asks to be left alone (Retry-After), an hour at most; 0 when it does not say.
	After time.Duration
	// Again is how often a request that is rejected is tried again before that holds.
	Again int
	// Unreachable: there was no connection. Loop: the answer is a door's, and not the primary's.
	Unreachable, Loop bool
	// Reason is for people, and holds nothing of the request, or of the address but a host name that a certificate is
	// not for.
	Reason string
}

// rule is a row of the table. The first that holds the status applies; a status in none (101, 600 and more) is a Fail.
// Source is where the status is defined, for those that RFC 9110 does not know. Again is [Verdict.Again].
type rule struct {
	from, to int
	action   Action
	about    string
	source   string
	again    int
}

var rules = []rule{
	{200, 299, Done, "the primary has it", "", 0},
	{408, 408, Pause, "the primary was too slow to read it", "", 0},
	{425, 425, Pause, "too early", "RFC 8470", 0},
	{429, 429, Pause, "too many requests", "RFC 6585", 0},
	{502, 504, Pause, "the primary, or what it depends on, is away or overloaded", "", 0},
	{507, 507, Pause, "the primary has no room to store anything", "RFC 4918", 0},
	{508, 508, Refuse, "a loop on the way: of doors, if a door of Fallback says so", "RFC 5842", 0},
	{509, 509, Pause, "the host's bandwidth for this month is used up", "cPanel", 0},
	{511, 511, Pause, "the network on the way wants a login", "RFC 6585", 0},
	{520, 527, Pause, "the proxy in front cannot reach the primary, or not understand it", "Cloudflare", 0},
	{529, 529, Pause, "the primary is overloaded", "Qualys, Anthropic", 0},
	{530, 530, Pause, "the proxy in front does not know where the primary is, or its site is frozen",
		"Cloudflare, Pantheon", 0},
	{561, 562, Pause, "the load balancer cannot ask who logs in", "AWS", 0},
	{598, 599, Pause, "a proxy on the way had no answer in time", "some proxies", 0},
	{500, 599, Fail, "the primary failed at it", "", 0},
	{409, 409, Reject, "a conflict; tried again twice before, since the first try may still be under way", "", 2},
	{400, 400, Reject, "the request is malformed", "", 0},
	{410, 410, Reject, "what it is for is gone for good", "", 0},
	{413, 413, Reject, "its body is too large", "", 0},
	{415, 415, Reject, "its body is of a kind that is not taken", "", 0},
	{422, 422, Reject, "what it says makes no sense", "", 0},
	{407, 407, Refuse, "a proxy on the way wants credentials: set them in HTTP_PROXY", "", 0},
	{300, 399, Refuse, "redirects are not followed: set FALLBACK_TARGET_URL to where they lead", "", 0},
	{400, 499, Refuse, "it is not taken, or does not get there: a path, a login, a rule of a proxy", "", 0},
}

// loopReason is not about the request: whoever answers so, the way leads in a circle.
const loopReason = "a loop: the target leads back to a door of Fallback; set FALLBACK_TARGET_URL to the API itself, " +
	"around what fails over (a second Fallback needs FALLBACK_ACCEPT_REPLAYS)"

// judge is the verdict on an answer, but for what its body says. Whatever it is, if it is no success and asks to wait,
// it is a pause first (RFC 9110, 10.2.3; RFC 6585, 4).
func judge(status int, h http.Header, now time.Time) Verdict {
	v := Verdict{Action: Fail, Status: status}
	for _, r := range rules {
		if r.from <= status && status <= r.to {
			v.Action, v.Again = r.action, r.again
			break
		}
	}
	if v.Action != Done {
		v.After = retryAfter(h, now)
	}
	if v.After > 0 {
		v.Action = Pause
	}
	v.Reason = strings.TrimSpace(fmt.Sprint(status, " ", http.StatusText(status)))
	return v
}

// loop is the verdict on a door's answer.
func loop(status int) Verdict {
	return Verdict{Action: Refuse, Status: status, Loop: true, Reason: fmt.Sprint(status, ", ", loopReason)}
}

// longestPause bounds what a primary may ask for.
const longestPause = time.Hour

// retryAfter reads the header in both its forms, seconds and a date (RFC 9110, 10.2.3); 0 if there is none to be read.
// A date is of the clock that the answer's own Date is of; now is for an answer without.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseFloat(value, 64); err == nil && seconds >= 0 {
		return time.Duration(min(seconds, longestPause.Seconds()) * float64(time.Second))
	}
	if at, err := http.ParseTime(value); err == nil {
		if answered, err := http.ParseTime(h.Get("Date")); err == nil {
			now = answered
		}
		return min(max(at.Sub(now), 0), longestPause)
	}
	return 0
}

// Markdown is the table of verdicts for docs/drain.md.
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
		if r.source != "" {
			status += " (" + r.source + ")"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", status, r.action, r.about)
	}
	fmt.Fprintf(&b, "| any other | %s | HTTP knows no such answer to a request |\n", Fail)
	fmt.Fprintf(&b, "| cannot be reached, or breaks the connection | %s | it is away |\n", Pause)
	fmt.Fprintf(&b, "| does not answer within FALLBACK_TARGET_TIMEOUT | %s | it may hang on this one |\n", Fail)
	fmt.Fprintf(&b, "| is not asked | %s | the message cannot be read, or is no request that HTTP allows |\n", Reject)
	fmt.Fprintf(&b, "| any but 2xx, with Retry-After | %s | it asks to wait |\n", Pause)
	return b.String()
}
