package httpapi

import (
	"net/netip"
	"slices"
	"strings"

	"fallback/functions/envelope"
)

// platformFields are those of the family that a platform sets; the others are a client's there.
var platformFields = []string{envelope.ForwardedFor, envelope.ForwardedProto, "X-Forwarded-Port"}

// cleanForwarded takes off what the primary could take for our word, or for a proxy's, whatever its spelling. A proxy
// that is trusted, and the platform, may have told what they knew: what they say stays, and of the addresses its own is
// the last. What the door itself saw stands in the request, and the drain tells it where nobody has. Trailers are never
// a proxy's.
func (d *Door) cleanForwarded(r *envelope.Request) {
	for name := range r.Header {
		if envelope.IsOurs(name) || envelope.IsForwarded(name) && !d.keeps(r, name) {
			delete(r.Header, name)
		}
	}
	for name := range r.Trailer {
		if envelope.IsOurs(name) || envelope.IsForwarded(name) {
			delete(r.Trailer, name)
		}
	}
	if d.options.Platform { // its list has all of them
		return
	}
	told := slices.DeleteFunc(r.Header[envelope.ForwardedFor],
		func(value string) bool { return strings.TrimSpace(value) == "" })
	if len(told) > 0 {
		r.Header[envelope.ForwardedFor] = []string{strings.Join(append(told, r.Peer().String()), ", ")}
	}
}

// keeps says whether a field of a proxy's is from one that is believed.
func (d *Door) keeps(r *envelope.Request, name string) bool {
	if d.options.Platform {
		return slices.Contains(platformFields, name)
	}
	peer := r.Peer()
	return isPlain(name) && peer.IsValid() &&
		slices.ContainsFunc(d.options.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(peer) })
}

// isPlain says whether a name is spelled with letters, digits and hyphens, as a proxy's are: any other is a client's,
// which means to be taken for one.
func isPlain(name string) bool {
	return !strings.ContainsFunc(name, func(c rune) bool {
		return c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	})
}
