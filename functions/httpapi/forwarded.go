package httpapi

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"fallback/functions/envelope"
)

// platforms set these of the family; the others are a client's there.
var platforms = []string{envelope.ForwardedFor, envelope.ForwardedProto, "X-Forwarded-Port"}

// forward takes off what the primary could take for our word, whatever its spelling, and tells it what the door knew of the
// request: X-Forwarded-For, -Proto, -Host and -Prefix. A proxy that is trusted, and the platform, may have told it before: what
// they say stays, and of the addresses ours is the last. Trailers are never theirs.
func (d *Door) forward(r *envelope.Request, trusted bool) {
	for name := range r.Header {
		kept := trusted && isPlain(name) || d.options.Platform && slices.Contains(platforms, name)
		if envelope.IsOurs(name) || envelope.IsForwarded(name) && !kept {
			delete(r.Header, name)
		}
	}
	for name := range r.Trailer {
		if envelope.IsOurs(name) || envelope.IsForwarded(name) {
			delete(r.Trailer, name)
		}
	}
	known := [...]string{d.forwardedFor(r), r.Scheme, r.Host, d.prefix}
	for i, name := range [...]string{envelope.ForwardedFor, envelope.ForwardedProto, envelope.ForwardedHost, envelope.ForwardedPrefix} {
		if _, told := r.Header[name]; known[i] != "" && (!told || i == 0) {
			r.Header[name] = known[i : i+1 : i+1]
		}
	}
}

// forwardedFor is the addresses that a request came through: those that were told, and the peer's, which is the last.
func (d *Door) forwardedFor(r *envelope.Request) string {
	told := strings.Join(r.Header[envelope.ForwardedFor], ", ")
	from := address(r.Remote)
	switch {
	case told == "" && from.IsValid():
		return from.String()
	case told == "" || d.options.Platform || !from.IsValid(): // the platform's list has all of them
		return told
	default:
		return told + ", " + from.String()
	}
}

// trusts says whether what a peer tells of others is believed.
func (d *Door) trusts(remote string) bool {
	addr := address(remote)
	return addr.IsValid() && slices.ContainsFunc(d.options.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// address is that of a peer, without its port; it is not valid if the peer has none.
func address(remote string) netip.Addr {
	if host, _, err := net.SplitHostPort(remote); err == nil {
		remote = host
	}
	addr, _ := netip.ParseAddr(remote)
	return addr.Unmap().WithZone("")
}

// isPlain says whether a name is spelled with letters, digits and hyphens, as a proxy's are: any other is a client's, which
// means to be taken for one.
func isPlain(name string) bool {
	return !strings.ContainsFunc(name, func(c rune) bool {
		return c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	})
}
