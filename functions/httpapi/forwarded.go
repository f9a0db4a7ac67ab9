package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"fallback/functions/envelope"
)

// forward takes off what the primary could take for our word, whatever its spelling, and tells it what the door knew of the
// request: X-Forwarded-For, -Proto, -Host and -Prefix. A proxy that is trusted, and the platform, may have told it before: what
// they say stays, and of the addresses ours is the last. Trailers are never theirs.
func (d *Door) forward(r *envelope.Request, trusted bool) {
	keep := trusted || d.options.Platform
	for name := range r.Header {
		if envelope.IsOurs(name) || envelope.IsForwarded(name) && !(keep && isPlain(name)) {
			delete(r.Header, name)
		}
	}
	for name := range r.Trailer {
		if envelope.IsOurs(name) || envelope.IsForwarded(name) {
			delete(r.Trailer, name)
		}
	}
	from := slices.Clone(r.Header[envelope.ForwardedFor])
	if addr := address(r.Remote); addr.IsValid() && !(d.options.Platform && len(from) > 0) { // whose list has all of them
		from = append(from, addr.String())
	}
	set(r.Header, envelope.ForwardedFor, strings.Join(from, ", "))
	setMissing(r.Header, envelope.ForwardedProto, r.Scheme)
	setMissing(r.Header, envelope.ForwardedHost, r.Host)
	setMissing(r.Header, envelope.ForwardedPrefix, d.prefix)
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

func set(h http.Header, name, value string) {
	if value != "" {
		h[name] = []string{value}
	}
}

func setMissing(h http.Header, name, value string) {
	if _, ok := h[name]; !ok {
		set(h, name, value)
	}
}

// isPlain says whether a name is spelled with letters, digits and hyphens, as a proxy's are: any other is a client's, which
// means to be taken for one.
func isPlain(name string) bool {
	return !strings.ContainsFunc(name, func(c rune) bool {
		return c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	})
}
