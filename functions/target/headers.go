package target

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"fallback/functions/envelope"
)

// addHeaders adds what the drain says of a request. What another program's message says in these fields is taken off;
// the hops are the door's.
func (c *Client) addHeaders(h http.Header, r *envelope.Request, try Try) {
	deleteOurs(h)
	if hops, ok := r.Header[envelope.HeaderHops]; ok {
		h[envelope.HeaderHops] = hops
	}
	if r.ID != "" {
		h.Set(envelope.HeaderID, r.ID)
		if h.Get("Idempotency-Key") == "" {
			h.Set("Idempotency-Key", r.ID)
		}
	}
	h.Set(envelope.HeaderAttempt, strconv.Itoa(try.Attempt))
	if try.Redelivered > 0 {
		h.Set(envelope.HeaderRedelivered, strconv.Itoa(try.Redelivered))
	}
	// What is signed is id.timestamp.body: a dot in the id would move the boundary.
	signed, received := c.signer != nil && r.ID != "" && !strings.Contains(r.ID, "."), r.ReceivedAt
	if signed && received.IsZero() { // another program's, which does not say; a signature needs a time
		received = time.Now()
	}
	if !received.IsZero() {
		h.Set(envelope.HeaderReceivedAt, received.UTC().Format(time.RFC3339Nano))
	}
	addForwarded(h, r)
	if signed {
		if signature, err := c.signer.Sign(r.ID, received, r.Body); err == nil {
			h.Set(envelope.HeaderSignature, signature)
		}
	}
}

// addForwarded says what the door knew of the request, where no proxy before it has: X-Forwarded-For, -Proto, -Host and
// -Prefix.
func addForwarded(h http.Header, r *envelope.Request) {
	from := ""
	if peer := r.Peer(); peer.IsValid() {
		from = peer.String()
	}
	known := [...]string{from, r.Scheme, r.Host, r.Prefix}
	for i, name := range [...]string{envelope.ForwardedFor, envelope.ForwardedProto, envelope.ForwardedHost,
		envelope.ForwardedPrefix} {
		if h.Get(name) == "" && known[i] != "" {
			h[name] = known[i : i+1 : i+1]
		}
	}
}

func deleteOurs(h http.Header) {
	for name := range h {
		if envelope.IsOurs(name) {
			delete(h, name)
		}
	}
}
