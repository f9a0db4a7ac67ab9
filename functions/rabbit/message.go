package rabbit

import (
	"fmt"
	"net/http"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/envelope"
)

// The names that a message carries; consumers in other languages rely on them.
const (
	// HeaderMetadata is the message header with the request's metadata, see [envelope.Request.Metadata].
	HeaderMetadata = "fallback"
	// AppID and MessageType mark the messages that carry it.
	AppID       = "fallback"
	MessageType = "http.request"
)

// toMessage makes the message of a request: the body is the request's body byte for byte, or text if there is none.
//
// Nothing that a client chose goes into the message's properties unchecked: a property or a header name of more than
// 255 bytes makes the client library close the whole connection, and with it everything in flight.
func toMessage(r envelope.Sealed, text string) amqp.Publishing {
	m := amqp.Publishing{
		Headers:      amqp.Table{HeaderMetadata: r.Metadata},
		ContentType:  contentType(r.ContentType),
		DeliveryMode: amqp.Persistent,
		MessageId:    r.ID,
		Timestamp:    r.ReceivedAt,
		Type:         MessageType,
		AppId:        AppID,
		Body:         r.Body,
	}
	if r.Bodyless() {
		m.ContentType, m.Body = "text/plain", []byte(text)
	}
	return m
}

// metadataSize is the bytes of a message's metadata.
func metadataSize(m amqp.Publishing) int {
	metadata, _ := m.Headers[HeaderMetadata].(string)
	return len(metadata)
}

// contentType is the request's, when a short string of AMQP can hold it and it is printable ASCII. The true value is in
// the metadata in any case.
func contentType(v string) string {
	const unknown = "application/octet-stream"
	if v == "" || len(v) > 255 {
		return unknown
	}
	for i := range len(v) {
		if v[i] < ' ' || v[i] > '~' {
			return unknown
		}
	}
	return v
}

// FromMessage is the request that a message carries. A message without metadata, from any other program, is a POST of
// its body to "/". One whose headers could not be read, see [HeaderUnreadable], is none: what it wanted was in them.
func FromMessage(d amqp.Delivery) (*envelope.Request, error) {
	if why, marked := d.Headers[HeaderUnreadable]; marked {
		return nil, fmt.Errorf("message %s: %.200v", d.MessageId, why)
	}
	switch meta := d.Headers[HeaderMetadata].(type) {
	case nil:
		r := &envelope.Request{
			ID: d.MessageId, Method: http.MethodPost, Target: "/", Proto: "HTTP/1.1",
			ReceivedAt: envelope.CleanTime(d.Timestamp), Header: http.Header{}, Body: d.Body,
		}
		if d.ContentType != "" {
			r.Header.Set("Content-Type", d.ContentType)
		}
		return r, nil
	case string:
		return envelope.Decode(d.MessageId, meta, d.Body)
	default:
		return nil, fmt.Errorf("message %s: header %q is a %T, want a string", d.MessageId, HeaderMetadata, meta)
	}
}
