package httpapi

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"fallback/functions/envelope"
)

// maxHops is how many doors a replay may be let in by; the next answers 508.
const maxHops = 4

// replay is what a replay of another Fallback says of itself. It is to be believed once its signature has been checked.
type replay struct {
	id       string
	received time.Time
	hops     int
	signed   http.Header // the signature in the form of Standard Webhooks
}

// isProbe says whether r is the probe of another Fallback's drain, whose replays may be let in.
func (d *Door) isProbe(r *http.Request) bool {
	return len(d.keys.replays) > 0 && r.Method == http.MethodGet && r.Header.Get(envelope.HeaderAttempt) == "0"
}

// readReplay returns nil where no replays are let in, and for what no drain that signs has sent: no body is read for
// its sake.
func (d *Door) readReplay(h http.Header) *replay {
	id, signature := h[envelope.HeaderID], h[envelope.HeaderSignature]
	if len(d.keys.replays) == 0 || len(id) != 1 || len(signature) != 1 || !isSignature(id[0], signature[0]) {
		return nil
	}
	received, err := time.Parse(time.RFC3339Nano, h.Get(envelope.HeaderReceivedAt))
	if err != nil {
		return nil
	}
	hops := 0
	if passed := h.Get(envelope.HeaderHops); passed != "" {
		if hops, err = strconv.Atoi(passed); err != nil || hops < 0 {
			return nil
		}
	}
	signed := signedHeader(id[0], strconv.FormatInt(received.Unix(), 10), signature[0])
	return &replay{id: id[0], received: received, hops: hops, signed: signed}
}

// adopt makes a captured request what the replay says that it is: the request that another door has taken. An id that
// is no UUID, another program's, becomes one made of it, always the same.
func (r replay) adopt(request *envelope.Request) {
	request.ID, request.ReceivedAt = r.id, r.received.UTC()
	if id, err := uuid.Parse(r.id); err != nil || id.String() != r.id {
		request.ID = uuid.NewSHA1(uuid.NameSpaceURL, []byte("urn:fallback:message:"+r.id)).String()
	}
	request.Header[envelope.HeaderHops] = []string{strconv.Itoa(r.hops + 1)}
}

// signedHeader is what the library of Standard Webhooks reads.
func signedHeader(id, timestamp, signature string) http.Header {
	h := make(http.Header, 3)
	h.Set(standardwebhooks.HeaderWebhookID, id)
	h.Set(standardwebhooks.HeaderWebhookTimestamp, timestamp)
	h.Set(standardwebhooks.HeaderWebhookSignature, signature)
	return h
}

// isSignature says whether this could be a signature. What is signed is "id.timestamp.body": a dot in an id would move
// the boundary, and one request's signature would be that of another.
func isSignature(id, signature string) bool {
	const length = len("v1,") + 44 // of base64 of 32 bytes
	if id == "" || strings.Contains(id, ".") {
		return false
	}
	for one := range strings.SplitSeq(signature, " ") {
		if len(one) == length && strings.HasPrefix(one, "v1,") {
			return true
		}
	}
	return false
}
