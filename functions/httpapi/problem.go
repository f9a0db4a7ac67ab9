package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"fallback/functions/problem"
)

// Outcomes that are no problem: a request that is stored, and a browser's question that was answered. That of any
// other is what its problem's type ends with.
const (
	Accepted  = "accepted"
	Preflight = "preflight"
)

// Outcomes are those of the door itself; the codes of its store's errors come on top.
func Outcomes() []string {
	names := []string{Accepted, Preflight}
	for _, p := range []problem.Problem{
		loop, methodNotQueued, unauthorized, unreadableBody, bodyTooSlow, *bodyTooLarge(0), *headerTooLarge(0),
		*notFound(""), rateLimited, overloaded, *unavailable(errors.New("of no store"), ""), problem.Internal,
	} {
		names = append(names, p.Name())
	}
	return names
}

// headersTooLarge is the name of two problems: what is stored of them, and the head itself, have bounds of their own.
const headersTooLarge = "headers-too-large"

// Retry-After in seconds: soon for what passes by itself, later for what needs the primary back.
const (
	retrySoon  = 5
	retryLater = 30
)

var (
	methodNotQueued = problem.New(http.StatusServiceUnavailable, "method-not-queued",
		"Requests of this method are not queued, because their clients need the answer of the API itself.").
		After(retryLater)
	unreadableBody = problem.New(http.StatusBadRequest, "unreadable", "The body could not be read to its end.")
	bodyTooSlow    = problem.New(http.StatusRequestTimeout, "body-too-slow", "The body did not come in time.")
	rateLimited    = problem.New(http.StatusTooManyRequests, "rate-limited", "Too many requests.").After(1)
	overloaded     = problem.New(http.StatusServiceUnavailable, "overloaded",
		"Too many requests at the same time.").After(retrySoon)
	loop = problem.New(http.StatusLoopDetected, problem.Loop,
		"This is a replay, and a door takes none: the target of the drain must be the API itself, around whatever "+
			"fails over. A second Fallback behind a first has FALLBACK_ACCEPT_REPLAYS.")
	tooManyHops = problem.New(http.StatusLoopDetected, problem.Loop,
		"This replay has been through too many doors: their targets lead in a circle.")
	unauthorized = problem.New(http.StatusUnauthorized, "unauthorized",
		"A token, as Fallback-Authorization: Bearer TOKEN or in one of its "+
			"other places, or a webhook signature is needed.").Challenge(`Bearer realm="fallback"`)
)

// Unconfigured answers for a door that has no settings to work with.
var Unconfigured http.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	problem.New(http.StatusServiceUnavailable, "not-configured",
		"The request is not accepted: settings are missing or wrong; the log says which.").After(retryLater).Write(w)
})

func notFound(prefix string) *problem.Problem {
	detail := "Requests are taken at " + prefix + " and below."
	if prefix == "" { // every path, so this was none: an asterisk, or a tunnel
		detail = "Requests are taken at paths, which begin with a slash."
	}
	p := problem.New(http.StatusNotFound, "not-found", detail)
	return &p
}

func bodyTooLarge(limit int64) *problem.Problem {
	p := problem.New(http.StatusRequestEntityTooLarge, "body-too-large",
		fmt.Sprintf("The body may have %d bytes.", limit))
	return &p
}

func headerTooLarge(limit int) *problem.Problem {
	p := problem.New(http.StatusRequestHeaderFieldsTooLarge, headersTooLarge,
		fmt.Sprintf("The request line and headers may take %d bytes.", limit))
	return &p
}

// rawHeadTooLarge is for a head as it stands on the wire.
func rawHeadTooLarge(limit int) problem.Problem {
	return problem.New(http.StatusRequestHeaderFieldsTooLarge, headersTooLarge,
		fmt.Sprintf("The request line and headers may take %d bytes and %d lines.", limit, maxFields))
}

// coded is an error that has a name for programs and a text without secrets.
type coded interface {
	error
	Code() string
}

// notStored is the answer when the store did not confirm: always one that the client tries again.
func notStored(err error, id string) *problem.Problem {
	p := unavailable(err, "The request is not accepted")
	p.Instance = "urn:uuid:" + id
	return p
}

// unavailable is a 503 that begins with what, and goes on with what err has for people.
func unavailable(err error, what string) *problem.Problem {
	code, detail := "not-stored", what+"."
	if c := coded(nil); errors.As(err, &c) {
		code, detail = c.Code(), what+": "+c.Error()+"."
	}
	p := problem.New(http.StatusServiceUnavailable, code, detail).After(retrySoon)
	return &p
}

// write writes the answer, and returns the outcome.
func write(w http.ResponseWriter, p problem.Problem) (outcome string) {
	p.Write(w)
	return p.Name()
}

// What net/http reads of a body that the door did not read, so that the connection can take another request: for
// arrivePatience before it writes the answer, which is enough for a body that is on its way, and for leavePatience
// after that. A connection that is closed before its client has stopped sending is reset, and the answer may be lost.
const (
	arrivePatience = 50 * time.Millisecond
	leavePatience  = time.Second
)

// refuse writes the answer to a request, whose body may not have been read to its end. By itself net/http would read
// up to 256 KiB of it first, for as long as the client may take to send them.
func refuse(w http.ResponseWriter, r *http.Request, p problem.Problem) (outcome string) {
	control := http.NewResponseController(w)
	if r.Body == http.NoBody || r.ContentLength == 0 || control.SetReadDeadline(time.Now().Add(arrivePatience)) != nil {
		return write(w, p) // there is no body, or no connection that it would come from
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(p.Body()))) // else what is flushed is chunked
	outcome = write(w, p)
	_ = control.Flush()
	if c := connOf(r); c != nil {
		c.setLingering()
	}
	_ = control.SetReadDeadline(time.Now().Add(leavePatience))
	return outcome
}
