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

	"fallback/functions/envelope"
)

// FuzzFromMessage holds that a message of any program is an error that names it, or a request that can be a message again
// and is then the same; and that what it counts and dates is within bounds.
func FuzzFromMessage(f *testing.F) {
	f.Add("id", "text/plain", byte('s'), `{"v":1,"method":"POST","target":"/","header":{"A":["b"]},"received_at":"2026-01-02T03:04:05.6Z"}`, int64(3), int64(1764196000), "2026-01-02T03:04:05Z", []byte("{}"))
	f.Add("", "", byte(0), "", int64(-1), int64(1764196000000), "yesterday", []byte(nil))
	f.Add("7", "text/pl\xe4n", byte('x'), `{"v":1}`, int64(1)<<62, int64(-1)<<63, "9999-12-31T23:59:59+23:59", []byte{0xff})
	f.Add("7", "a\r\nb", byte('i'), `{"v":1,"bodyless":true}`, int64(-1)<<63, int64(1)<<62, "", []byte("A request has been sent via fallback API"))
	f.Fuzz(func(t *testing.T, id, contentType string, kind byte, meta string, attempts, sent int64, redriven string, body []byte) {
		d := amqp.Delivery{
			MessageId: id, ContentType: contentType, Body: body, Timestamp: time.Unix(sent, 0),
			Headers: amqp.Table{HeaderAttempt: attempts, HeaderRedrivenAt: redriven, "x-death": []any{amqp.Table{"count": attempts}}, "CC": []any{"other"}},
		}
		switch kind {
		case 's':
			d.Headers[HeaderMetadata] = meta
		case 'x':
			d.Headers[HeaderMetadata] = []byte(meta)
		case 'i':
			d.Headers[HeaderMetadata], d.Headers[HeaderAttempt] = attempts, int32(attempts)
		}
		checkAccounts(t, &Delivery{message: d})

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
		m := toMessage(r, "text")
		checkProperties(t, m)
		back := receive(t, m)
		if diff := cmp.Diff(r, back, cmpopts.IgnoreUnexported(envelope.Request{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("-first +second:\n%s", diff)
		}
	})
}

// checkAccounts holds what is read of a message's own headers, and which of them it keeps when it is moved.
func checkAccounts(t *testing.T, d *Delivery) {
	t.Helper()
	if n := d.Attempts(); n < 0 || n > 1<<20 {
		t.Errorf("%d attempts", n)
	}
	m := d.copy(map[string]any{HeaderAttempt: int64(1), HeaderRedrivenAt: nil})
	for name := range m.Headers {
		if brokersOwn[name] || name == HeaderRedrivenAt {
			t.Errorf("it is moved with %s", name)
		}
	}
	if m.MessageId == "" || m.Headers[HeaderAttempt] != int64(1) || !bytes.Equal(m.Body, d.message.Body) {
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
		m := toMessage(want, "text")
		checkProperties(t, m)
		if diff := cmp.Diff(want, receive(t, m), cmpopts.IgnoreUnexported(envelope.Request{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("-sent +received:\n%s", diff)
		}
	})
}

// checkProperties holds that the client library can write the message: else it closes the connection of all requests.
func checkProperties(t *testing.T, m amqp.Publishing) {
	t.Helper()
	if len(m.ContentType) > 255 || strings.ContainsFunc(m.ContentType, func(c rune) bool { return c < ' ' || c > '~' }) {
		t.Errorf("content type %q", m.ContentType)
	}
	if err := m.Headers.Validate(); err != nil {
		t.Error(err)
	}
	if m.DeliveryMode != amqp.Persistent {
		t.Error("it is not persistent")
	}
}
