// Package problem is the errors that Fallback answers over HTTP: problem details of RFC 9457, whose types are stable,
// for programs.
package problem

import (
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"strings"
)

const (
	// Prefix is what the type of each begins with. Its name is the rest.
	Prefix = "urn:fallback:problem:"
	// ContentType is the answer's.
	ContentType = "application/problem+json"
	// Loop is the name of a door's answer to a replay that it does not take.
	Loop = "loop"
)

// Problem is an answer. Type is for programs, Detail is for people, and shows no URL, credential or address.
type Problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail,omitempty"`
	Instance string `json:"instance,omitempty"`

	retryAfter int    // seconds; 0 for none
	challenge  string // WWW-Authenticate
}

// New returns a problem of the type [Prefix] and name, with the status's own text as its title.
func New(status int, name, detail string) Problem {
	return Problem{Type: Prefix + name, Title: http.StatusText(status), Status: status, Detail: detail}
}

// Internal is the answer to a bug of ours.
var Internal = New(http.StatusInternalServerError, "internal", "Something is wrong here; the request was not accepted.")

// After asks the client to wait for so many seconds.
func (p Problem) After(seconds int) Problem {
	p.retryAfter = seconds
	return p
}

// Challenge says how a client shows that it may come in (WWW-Authenticate).
func (p Problem) Challenge(challenge string) Problem {
	p.challenge = challenge
	return p
}

// Name is the type without [Prefix].
func (p Problem) Name() string { return strings.TrimPrefix(p.Type, Prefix) }

// Body is the JSON of the answer.
func (p Problem) Body() []byte {
	body, _ := json.Marshal(p) // strings and a number
	return append(body, '\n')
}

// Header is the answer's.
func (p Problem) Header() http.Header {
	h := http.Header{"Content-Type": {ContentType}, "Cache-Control": {"no-store"}}
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	if p.challenge != "" {
		h.Set("WWW-Authenticate", p.challenge)
	}
	return h
}

// Write writes the answer.
func (p Problem) Write(w http.ResponseWriter) {
	maps.Copy(w.Header(), p.Header())
	w.WriteHeader(p.Status)
	_, _ = w.Write(p.Body())
}
