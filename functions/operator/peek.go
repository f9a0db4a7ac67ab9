package operator

import (
	"context"
	"encoding/base64"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"fallback/functions/drain"
	"fallback/functions/envelope"
	"fallback/functions/rabbit"
)

// Peeked is a request that waits.
type Peeked struct {
	ID         string      `json:"id"`
	Method     string      `json:"method"`
	Target     string      `json:"target"`
	ReceivedAt time.Time   `json:"received_at,omitzero"`
	Attempts   int         `json:"attempts"`
	Reason     string      `json:"reason,omitempty"` // why it is parked
	Status     string      `json:"status,omitempty"` // the primary's last answer
	Header     http.Header `json:"header,omitempty"`
	Body       string      `json:"body,omitempty"`
	IsBase64   bool        `json:"is_base64_encoded,omitempty"` // the body, where it is no UTF-8: JSON would damage it
	BodyBytes  int         `json:"body_bytes"`
	Error      string      `json:"error,omitempty"` // why the message cannot be read as a request
}

// Detail is how much of each request is shown.
type Detail int

const (
	Brief Detail = iota // neither headers nor bodies
	Full                // both; the values of headers that open doors are hidden
)

// PeekMain shows the first requests on the main queue, no more than most, and requeues them. An error may come beside
// rows.
func (o *Operator) PeekMain(ctx context.Context, most int, detail Detail) ([]Peeked, error) {
	return o.peek(ctx, o.config.Topology.Main, most, detail)
}

// PeekParked is PeekMain for the parked queue.
func (o *Operator) PeekParked(ctx context.Context, most int, detail Detail) ([]Peeked, error) {
	return o.peek(ctx, o.config.Topology.Parked, most, detail)
}

func (o *Operator) peek(ctx context.Context, queue string, most int, detail Detail) ([]Peeked, error) {
	source := o.source(queue)
	defer source.Close()
	rows := []Peeked{}
	unsettled, err := each(ctx, source, min(most, MostUnacked), func(d *rabbit.Delivery) (deed, error) {
		rows = append(rows, describe(d, detail))
		if len(rows) == most {
			return nothing, errEnough
		}
		return nothing, nil
	})
	requeue(source, unsettled)
	return rows, err
}

// secretHeaders are never shown: what they hold opens doors.
var secretHeaders = slices.Concat(envelope.Credentials, []string{"Proxy-Authorization", "Set-Cookie"})

func describe(d *rabbit.Delivery, detail Detail) Peeked {
	row := Peeked{ID: d.ID(), Attempts: drain.Attempts(d), Reason: d.Header(drain.HeaderReason),
		Status: d.Header(drain.HeaderStatus)}
	r, err := d.Request()
	if err != nil {
		row.Error = err.Error()
		return row
	}
	row.Method, row.Target, row.ReceivedAt, row.BodyBytes = r.Method, r.Target, r.ReceivedAt, len(r.Body)
	if detail == Brief {
		return row
	}
	row.Header = r.Header.Clone()
	for name := range row.Header {
		// another program may write it in small letters
		if slices.Contains(secretHeaders, http.CanonicalHeaderKey(name)) {
			row.Header[name] = []string{"(hidden)"}
		}
	}
	row.SetBody(r.Body)
	return row
}

// SetBody shows every byte of a body, as text where it is some.
func (p *Peeked) SetBody(body []byte) {
	if p.Body = string(body); !utf8.Valid(body) {
		p.Body, p.IsBase64 = base64.StdEncoding.EncodeToString(body), true
	}
}
