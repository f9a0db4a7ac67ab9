package envelope

import (
	"net/http"
	"slices"
)

// The fields in which Fallback speaks: to the primary, of a replay, and to a door. What a client sends under one of
// these names is taken off, as the primary is to trust what it finds there.
const (
	HeaderID = "Fallback-Id" // the request's id, the same in every attempt
	// which attempt this is, from 1; 0 in a probe. It marks what the drain sends
	HeaderAttempt = "Fallback-Attempt"
	// how often the broker had handed the request over before, and not heard what became of it: it may have been sent;
	// absent for never
	HeaderRedelivered = "Fallback-Redelivered"
	HeaderReceivedAt  = "Fallback-Received-At" // when the door took the request: RFC 3339, UTC
	// Standard Webhooks, over the id, the seconds of the time received and the body
	HeaderSignature = "Fallback-Signature"
	// how many doors have let the request in as another's replay; absent for none
	HeaderHops          = "Fallback-Hops"
	HeaderAuthorization = "Fallback-Authorization" // a sender's token for the door; it is never stored
)

// ProbeUserAgent is who asks whether the primary is alive.
const ProbeUserAgent = "fallback-probe"

var ours = []string{
	HeaderID, HeaderAttempt, HeaderRedelivered, HeaderReceivedAt, HeaderSignature, HeaderHops, HeaderAuthorization,
}

// IsOurs says whether a field of that name could be taken for one of ours.
func IsOurs(name string) bool {
	return name != "" && name[0]|0x20 == 'f' && // most are not: one comparison instead of seven
		slices.ContainsFunc(ours, func(our string) bool { return alike(name, our) })
}

// IsMarked says whether a request is one that a drain has sent: a replay, or a probe.
func IsMarked(h http.Header) bool {
	if _, ok := h[HeaderAttempt]; ok {
		return true
	}
	for name := range h {
		if alike(name, HeaderAttempt) {
			return true
		}
	}
	return false
}

// The fields in which a proxy says what it knew of a request.
const (
	ForwardedFor    = "X-Forwarded-For"    // the addresses that it came through, the client's first
	ForwardedProto  = "X-Forwarded-Proto"  // http or https
	ForwardedHost   = "X-Forwarded-Host"   // what the client asked for
	ForwardedPrefix = "X-Forwarded-Prefix" // what was taken off the path
)

// IsForwarded says whether a field of that name could be taken for a proxy's word: X-Forwarded-*, Forwarded (RFC
// 7239), and nginx's X-Real-IP.
func IsForwarded(name string) bool {
	const family = "X-Forwarded-"
	return len(name) > len(family) && alike(name[:len(family)], family) || alike(name, "Forwarded") ||
		alike(name, "X-Real-Ip")
}

// alike says whether two names are the same to those who read them as CGI does (RFC 3875, 4.1.18), and with it WSGI,
// Rack and PHP: in one case, with all but letters and digits as underscores.
func alike(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if folded(a[i]) != folded(b[i]) {
			return false
		}
	}
	return true
}

func folded(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c | 0x20
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	default:
		return '_'
	}
}

// Credentials are the headers by which a primary tells who sends. Their values are shown to nobody.
var Credentials = []string{"Authorization", "Cookie", "X-Api-Key", "Api-Key", "X-Auth-Token", "X-Access-Token"}
