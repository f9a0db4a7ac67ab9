package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Outcomes that are no problem: a request that is stored, and a browser's question that was answered. That of any other is what
// its problem's type ends with.
const (
	Accepted  = "accepted"
	Preflight = "preflight"
)

// Outcomes are those of the door itself; the codes of its store's errors come on top.
func Outcomes() []string {
	return []string{
		Accepted, Preflight, "loop", "method-not-queued", "unauthorized", "unreadable", "body-too-slow", "body-too-large", "headers-too-large",
		"not-found", "rate-limited", "overloaded", "not-stored", "internal",
	}
}

// problem is an RFC 9457 error answer. Type is stable and made for programs, Detail is for people.
type problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail,omitempty"`
	Instance string `json:"instance,omitempty"`

	retryAfter int    // seconds; 0 for none
	challenge  string // WWW-Authenticate
}

// Retry-After in seconds: soon for what passes by itself, later for what needs the primary back.
const (
	retrySoon  = 5
	retryLater = 30
)

// typePrefix is what the types of all problems begin with.
const typePrefix = "urn:fallback:problem:"

func newProblem(status int, name, detail string) problem {
	return problem{Type: typePrefix + name, Title: http.StatusText(status), Status: status, Detail: detail}
}

func (p problem) after(seconds int) problem {
	p.retryAfter = seconds
	return p
}

var (
	methodNotQueued = newProblem(http.StatusServiceUnavailable, "method-not-queued",
		"Requests of this method are not queued, because their clients need the answer of the API itself.").after(retryLater)
	unreadableBody = newProblem(http.StatusBadRequest, "unreadable", "The body could not be read to its end.")
	bodyTooSlow    = newProblem(http.StatusRequestTimeout, "body-too-slow", "The body did not come in time.")
	rateLimited    = newProblem(http.StatusTooManyRequests, "rate-limited", "Too many requests.").after(1)
	overloaded     = newProblem(http.StatusServiceUnavailable, "overloaded", "Too many requests at the same time.").after(retrySoon)
	loop           = newProblem(http.StatusLoopDetected, "loop", "This is a replay, and a door takes none: the target of the drain "+
		"must be the API itself, around whatever fails over. A second Fallback behind a first has FALLBACK_ACCEPT_REPLAYS.")
	tooManyHops  = newProblem(http.StatusLoopDetected, "loop", "This replay has been through too many doors: their targets lead in a circle.")
	internal     = newProblem(http.StatusInternalServerError, "internal", "Something is wrong here; the request was not accepted.")
	unauthorized = problem{
		Type: typePrefix + "unauthorized", Title: "Unauthorized", Status: http.StatusUnauthorized,
		Detail:    "A token, as Fallback-Authorization: Bearer TOKEN or in one of its other places, or a webhook signature is needed.",
		challenge: `Bearer realm="fallback"`,
	}
)

// Unconfigured answers for a door that has no settings to work with.
var Unconfigured http.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	newProblem(http.StatusServiceUnavailable, "not-configured",
		"The request is not accepted: settings are missing or wrong; the log says which.").after(retryLater).write(w)
})

func notFound(prefix string) *problem {
	detail := "Requests are taken at " + prefix + " and below."
	if prefix == "" { // every path, so this was none: an asterisk, or a tunnel
		detail = "Requests are taken at paths, which begin with a slash."
	}
	p := newProblem(http.StatusNotFound, "not-found", detail)
	return &p
}

func bodyTooLarge(limit int64) *problem {
	p := newProblem(http.StatusRequestEntityTooLarge, "body-too-large", fmt.Sprintf("The body may have %d bytes.", limit))
	return &p
}

func headerTooLarge(limit int) *problem {
	p := newProblem(http.StatusRequestHeaderFieldsTooLarge, "headers-too-large",
		fmt.Sprintf("The request line and headers may take %d bytes.", limit))
	return &p
}

// coded is an error that has a name for programs and a text without secrets.
type coded interface {
	error
	Code() string
}

// notStored is the answer when the store did not confirm: always one that the client tries again.
func notStored(err error, id string) *problem {
	p := unavailable(err, "The request is not accepted")
	p.Instance = "urn:uuid:" + id
	return p
}

// unavailable is a 503 that begins with what, and goes on with what err has for people.
func unavailable(err error, what string) *problem {
	code, detail := "not-stored", what+"."
	if c := coded(nil); errors.As(err, &c) {
		code, detail = c.Code(), what+": "+c.Error()+"."
	}
	p := newProblem(http.StatusServiceUnavailable, code, detail).after(retrySoon)
	return &p
}

// write writes the answer, and returns the outcome.
func (p problem) write(w http.ResponseWriter) (outcome string) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	if p.challenge != "" {
		h.Set("WWW-Authenticate", p.challenge)
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(p.body())
	return strings.TrimPrefix(p.Type, typePrefix)
}

func (p problem) body() []byte {
	body, _ := json.Marshal(p) // strings and a number
	return append(body, '\n')
}

// What net/http reads of a body that the door did not read, so that the connection can take another request: for
// arrivePatience before it writes the answer, which is enough for a body that is on its way, and for lingerPatience
// after that. A connection that is closed before its client has stopped sending is reset, and the answer may be lost.
const (
	arrivePatience = 50 * time.Millisecond
	lingerPatience = time.Second
)

// refuse writes the answer to a request whose body has not been read to its end. By itself net/http would read up to
// 256 KiB of it first, for as long as the client may take to send them.
func (p problem) refuse(w http.ResponseWriter, r *http.Request) (outcome string) {
	control := http.NewResponseController(w)
	if r.ContentLength == 0 || control.SetReadDeadline(time.Now().Add(arrivePatience)) != nil {
		return p.write(w) // there is no body, or no connection that it would come from
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(p.body()))) // else what is flushed is chunked
	outcome = p.write(w)
	_ = control.Flush()
	if c := connOf(r); c != nil {
		c.lingers()
	}
	_ = control.SetReadDeadline(time.Now().Add(lingerPatience))
	return outcome
}
