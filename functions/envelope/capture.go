package envelope

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// ErrHeaderTooLarge is the error of [Request.Seal]. It is the client's to mend.
var ErrHeaderTooLarge = errors.New("request line and headers are over the limit")

// Capture returns all that r carries, with target as its [Request.Target] and body, which has been read to its end: trailers
// are there only then. It takes over r.Header. What it returns may be changed until it is sealed.
func Capture(r *http.Request, target string, body []byte, received time.Time) *Request {
	captured := &Request{
		ID:         uuid.Must(uuid.NewV7()).String(), // it fails when there is no randomness to be had, which ends the program before
		Method:     r.Method,
		Target:     target,
		Host:       r.Host,
		Scheme:     "http",
		Proto:      r.Proto,
		Remote:     r.RemoteAddr,
		ReceivedAt: received.UTC(),
		Header:     r.Header,
		Trailer:    r.Trailer,
		Body:       body,
	}
	if r.TLS != nil {
		captured.Scheme = "https"
	}
	return captured
}

// Seal encodes the metadata, which is not to be changed any more: what is sent is what was found to fit. The limit is in bytes
// of the encoded form: the request line, every header and what surrounds them in JSON. A message's headers must fit into one
// AMQP frame (131,072 bytes), so more than 120 KiB cannot be promised. The error is [ErrHeaderTooLarge], with the figures.
func (r *Request) Seal(limit int) error {
	r.metadata = r.encode()
	if size := len(r.metadata); size > limit {
		return fmt.Errorf("%w: %d bytes encoded, the limit is %d", ErrHeaderTooLarge, size, limit)
	}
	return nil
}
