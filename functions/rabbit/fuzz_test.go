package rabbit

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	amqp "github.com/rabbitmq/amqp091-go"
)

// FuzzFromMessage holds that a message of any program is an error that names it, or a request that can be a message
// again and is then the same.
func FuzzFromMessage(f *testing.F) {
	f.Add("id", "text/plain", byte('s'), `{"v":1,"method":"POST","target":"/","header":{"A":["b"]},"received_at":"2026-01-02T03:04:05.6Z"}`, int64(3), int64(1764196000), "2026-01-02T03:04:05Z", []byte("{}"))
	f.Add("", "", byte(0), "", int64(-1), int64(1764196000000), "yesterday", []byte(nil))
	f.Add("7", "text/pl\xe4n", byte('x'), `{"v":1}`, int64(1)<<62, int64(-1)<<63, "9999-12-31T23:59:59+23:59",
		[]byte{0xff})
	f.Add("7", "a\r\nb", byte('i'), `{"v":1,"bodyless":true}`, int64(-1)<<63, int64(1)<<62, "",
		[]byte("A request has been sent via fallback API"))
	f.Fuzz(func(t *testing.T, id, contentType string, kind byte, meta string, attempts, sent int64, redriven string,
		body []byte) {
		d := amqp.Delivery{
			MessageId: id, ContentType: contentType, Body: body, Timestamp: time.Unix(sent, 0),
			Headers: amqp.Table{"fallback-attempt": attempts, "fallback-redriven-at": redriven,
				"x-death": []any{amqp.Table{"count": attempts}}, "CC": []any{"other"}},
		}
		switch kind {
		case 's':
			d.Headers[HeaderMetadata] = meta
		case 'x':
			d.Headers[HeaderMetadata] = []byte(meta)
		case 'i':
			d.Headers[HeaderMetadata], d.Headers["fallback-attempt"] = attempts, int32(attempts)
		}
		checkCopy(t, &Delivery{message: d})

		r, err := FromMessage(d)
		if err != nil {
			if !strings.Contains(err.Error(), id) {
				t.Errorf("the error does not name %q: %v", id, err)
			}
			return
		}
		if _, err := r.ReceivedAt.MarshalJSON(); err != nil {
			t.Errorf("received at %v: %v", r.ReceivedAt, err)
		}
		m := toMessage(seal(r), "text")
		checkProperties(t, m)
		back := receive(t, m)
		if diff := cmp.Diff(r, back, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("-first +second:\n%s", diff)
		}
	})
}

// checkCopy holds what a message is moved as.
func checkCopy(t *testing.T, d *Delivery) {
	t.Helper()
	m := d.copy(map[string]any{"fallback-attempt": int64(1), "fallback-redriven-at": nil})
	for name := range m.Headers {
		if brokersOwn[name] || name == "fallback-redriven-at" {
			t.Errorf("it is moved with %s", name)
		}
	}
	if m.MessageId == "" || m.Headers["fallback-attempt"] != int64(1) || !bytes.Equal(m.Body, d.message.Body) {
		t.Errorf("it is moved as %+v", m)
	}
}

// FuzzToMessage holds that nothing a client sends gets into a property unchecked, and that what goes out comes back.
func FuzzToMessage(f *testing.F) {
	f.Add("POST", "/orders/42?x=1", "application/json", "X-Tag", "a", []byte("{}"))
	f.Add("PUT", "/caf\xe9", "text/pl\xe4n", "X-\xff", "\x00", []byte(nil))
	f.Add("POST", "/", strings.Repeat("b", 300), "Content-Type", strings.Repeat("é", 200), []byte{0})
	f.Fuzz(func(t *testing.T, method, target, contentType, name, value string, body []byte) {
		want := captured()
		want.Method, want.Target, want.Body = method, target, body
		want.Header = http.Header{"Content-Type": {contentType}}
		want.Header.Add(name, value)
		m := toMessage(seal(want), "text")
		checkProperties(t, m)
		if diff := cmp.Diff(want, receive(t, m), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("-sent +received:\n%s", diff)
		}
	})
}

// checkProperties holds that the client library can write the message: else it closes the connection of all requests.
func checkProperties(t *testing.T, m amqp.Publishing) {
	t.Helper()
	if len(m.ContentType) > 255 || strings.ContainsFunc(m.ContentType,
		func(c rune) bool { return c < ' ' || c > '~' }) {
		t.Errorf("content type %q", m.ContentType)
	}
	if err := m.Headers.Validate(); err != nil {
		t.Error(err)
	}
	if m.DeliveryMode != amqp.Persistent {
		t.Error("it is not persistent")
	}
}
