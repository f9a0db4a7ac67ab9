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

// Capture returns all that r carries, with target as its [Request.Target] and body, which has been read to its end:
// trailers are there only then. It takes over r.Header.
func Capture(r *http.Request, target string, body []byte, received time.Time) *Request {
	captured := &Request{
		// it cannot fail: without randomness, crypto/rand ends the program
		ID:         uuid.Must(uuid.NewV7()).String(),
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

// Sealed is a captured request as it is stored. It is a type of its own, so that nobody edits a request whose metadata
// has been encoded, without effect.
type Sealed struct {
	ID          string
	ReceivedAt  time.Time
	ContentType string // as it came; empty for none
	Metadata    string // see [Request.Metadata]
	Body        []byte
}

// Bodyless says that there is nothing in the body.
func (s Sealed) Bodyless() bool { return len(s.Body) == 0 }

// Seal encodes the metadata, if it fits: what is sent is what was found to fit. The limit is in bytes of the encoded
// form: the request line, every header and what surrounds them in JSON. A message's headers must fit into one AMQP
// frame (131,072 bytes), so more than 120 KiB cannot be promised. The error is [ErrHeaderTooLarge], with the figures.
func (r *Request) Seal(limit int) (Sealed, error) {
	s := Sealed{ID: r.ID, ReceivedAt: r.ReceivedAt, ContentType: r.Header.Get("Content-Type"), Metadata: r.Metadata(),
		Body: r.Body}
	if size := len(s.Metadata); size > limit {
		return Sealed{}, fmt.Errorf("%w: %d bytes encoded, the limit is %d", ErrHeaderTooLarge, size, limit)
	}
	return s, nil
}
