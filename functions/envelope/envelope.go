// Package envelope is a captured HTTP request: what came in at the door, what travels in the message, what goes out in
// the replay.
//
// [Capture] takes everything that an HTTP request carries, and [Request.Seal] fails if it does not fit: nothing is
// ever cut. [Request.Metadata] and [Decode] are the codec of what travels beside the body, and [Request.HTTP] turns a
// captured request back into one that can be sent. Capture, Metadata, Decode and HTTP in a row give the request that
// came in: the same method, target, values of every header in their order, trailers and body bytes.
package envelope

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Request is one captured HTTP request.
type Request struct {
	// ID is the message id, the answer's id and the Fallback-Id header; a UUIDv7 if [Capture] made it. It is the same
	// for every attempt to store or to replay this request.
	ID string
	// Method is as it came.
	Method string
	// Target is the path and query in origin form (RFC 9112, 3.2.1) with the door's prefix taken off: "/orders/42?x=1".
	Target string
	// Host is what the client asked for; it is empty when the client sent none (HTTP/1.0).
	Host string
	// Scheme is "http" or "https", as the door was reached.
	Scheme string
	// Proto is the protocol of the request line: "HTTP/1.1".
	Proto string
	// Remote is the address that the request came from, as the platform knows it.
	Remote string
	// Prefix is what was taken off the path, without a slash at its end; it is empty for nothing.
	Prefix string
	// ReceivedAt is when the headers had been read, in UTC.
	ReceivedAt time.Time
	// Header has every value of every header; the order of the values of one name is kept, the order of names is not
	// (RFC 9110, 5.3: it has no meaning).
	Header http.Header
	// Trailer has the fields that followed a chunked body, nil if there were none.
	Trailer http.Header
	// Body is the body as it came, without transfer coding. Content codings (gzip) are the client's and stay.
	Body []byte
}

// Peer is the address of [Request.Remote], without its port. It is not valid where there is none.
func (r *Request) Peer() netip.Addr {
	remote := r.Remote
	if host, _, err := net.SplitHostPort(remote); err == nil {
		remote = host
	}
	addr, _ := netip.ParseAddr(remote)
	return addr.Unmap().WithZone("")
}

// HTTP returns the request as it is to be sent to base, for example "https://api.example.com/v2": base's path comes
// before the target, and the target's bytes stay as they are, odd escapes, empty segments and all.
//
// Headers that belong to one connection only (RFC 9110, 7.6.1) are left out, and so are trailers that cannot be sent.
// Content-Length is made anew from the body. The Host is that of base.
//
// A request of another program may be none that can be sent. The error says why, and shows nothing of it; names and
// values of headers are for net/http to refuse, before it connects.
func (r *Request) HTTP(ctx context.Context, base *url.URL) (*http.Request, error) {
	if r.Method == "" {
		return nil, errors.New("it has no method") // net/http would send a GET
	}
	target, err := targetURL(base, r.Target)
	if err != nil {
		return nil, err
	}
	out := &http.Request{
		Method: r.Method,
		URL:    target,
		Proto:  "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Host:   base.Host,
		Header: endToEnd(r.Header),
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // else net/http would add its own
	}
	out.Trailer = trailers(r.Trailer)
	if len(r.Body) > 0 || len(out.Trailer) > 0 {
		out.ContentLength = int64(len(r.Body))
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(r.Body)), nil }
		out.Body, _ = out.GetBody()
	}
	if len(out.Trailer) > 0 {
		out.ContentLength = -1 // trailers travel in chunked bodies only
	}
	return out.WithContext(ctx), nil
}

// targetURL puts target behind base's path so that net/http writes the very bytes of target on the request line.
func targetURL(base *url.URL, target string) (*url.URL, error) {
	path, query, hasQuery := strings.Cut(target, "?")
	if !strings.HasPrefix(path, "/") {
		return nil, errors.New("its target is not a path")
	}
	if strings.ContainsFunc(target, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return nil, errors.New("its target holds a space or a control character") // it would end the request line
	}
	path = strings.TrimSuffix(base.EscapedPath(), "/") + path
	u := &url.URL{Scheme: base.Scheme, User: base.User, Host: base.Host, RawQuery: query, ForceQuery: hasQuery}
	if !strings.HasPrefix(path, "//") {
		u.Opaque = path // written as it stands
		return u, nil
	}
	// url.URL takes an opaque part that begins with two slashes for a host, so such a path goes the ordinary way, if
	// it keeps its bytes there. One with characters that no URI may hold, or with an escape that is none, would be
	// built anew from its decoded form: it goes as a whole URL, which every server must take (RFC 9112, 3.2.2).
	if decoded, err := url.PathUnescape(path); err == nil {
		u.Path, u.RawPath = decoded, path
	}
	if u.EscapedPath() != path {
		u.Path, u.RawPath, u.Opaque = "", "", "//"+base.Host+path
	}
	return u, nil
}

// hopByHop are the headers that a proxy does not pass on (RFC 9110, 7.6.1), beside those that Connection names.
// Content-Length is here because net/http writes it from the body, and Expect because the door has met it: sent again,
// it would be a wait of the primary's for a body that is there, or a 417.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Expect", "Host",
}

func endToEnd(h http.Header) http.Header {
	out := h.Clone()
	if out == nil {
		out = http.Header{}
	}
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			// those are the door's, and no client's to take off
			if name = strings.TrimSpace(name); !IsForwarded(name) && !IsOurs(name) {
				out.Del(name)
			}
		}
	}
	for _, name := range hopByHop {
		out.Del(name)
	}
	return out
}

// trailers are those that can be sent, nil if there are none. net/http's server takes some that its client refuses
// together with the whole request: a name that is none, or that was announced and never came, and a value with a
// control character. Anybody on the way may leave trailers out (RFC 9110, 6.5.1).
func trailers(h http.Header) http.Header {
	out := endToEnd(h)
	for name, values := range out {
		if !isToken(name) || len(values) == 0 || slices.ContainsFunc(values, hasControl) {
			delete(out, name)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// isToken says that a field may have this name (RFC 9110, 5.6.2).
func isToken(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c)
	})
}

func hasControl(value string) bool {
	return strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f })
}
