package envelope

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// What Capture answers when a request cannot be taken whole. All of them are the client's to mend.
var (
	ErrBodyTooLarge   = errors.New("body is over the limit")
	ErrHeaderTooLarge = errors.New("request line and headers are over the limit")
	ErrUnreadable     = errors.New("body could not be read")
)

// Limits bound a captured request, in bytes.
type Limits struct {
	// Body bounds the body, whatever its transfer coding.
	Body int64
	// Header bounds the encoded metadata: the request line, every header and what surrounds them in JSON. A message's
	// headers must fit into one AMQP frame (131,072 bytes), so more than 120 KiB cannot be promised.
	Header int
}

// Capture reads r to its end and returns all of it, with target as its [Request.Target]. It takes over r.Header.
//
// It fails with [ErrBodyTooLarge], [ErrHeaderTooLarge] or [ErrUnreadable] (wrapped, with the cause); what it returns is
// never cut.
func Capture(r *http.Request, target string, limits Limits) (*Request, error) {
	now := time.Now().UTC()
	body, err := readBody(r, limits.Body)
	if err != nil {
		return nil, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make an id: %w", err)
	}
	captured := &Request{
		ID:         id.String(),
		Method:     r.Method,
		Target:     target,
		Host:       r.Host,
		Scheme:     "http",
		Proto:      r.Proto,
		Remote:     r.RemoteAddr,
		ReceivedAt: now,
		Header:     r.Header,
		Trailer:    r.Trailer,
		Body:       body,
	}
	if r.TLS != nil {
		captured.Scheme = "https"
	}
	captured.metadata = captured.encode()
	if size := len(captured.metadata); size > limits.Header {
		return nil, fmt.Errorf("%w: %d bytes encoded, the limit is %d", ErrHeaderTooLarge, size, limits.Header)
	}
	return captured, nil
}

// readBody reads the whole body, and one byte past the limit when there are more: a length that the client states is
// not trusted to be the length that it sends, and there may be none.
func readBody(r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrBodyTooLarge, r.ContentLength, limit)
	}
	if r.Body == nil || r.ContentLength == 0 {
		return nil, nil
	}
	if r.ContentLength > 0 {
		body := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
		}
		return body, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("%w: the limit is %d bytes", ErrBodyTooLarge, limit)
	}
	return body, nil
}
