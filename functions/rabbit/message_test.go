package rabbit

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/envelope"
)

// TestContentType holds that the property is the request's type wherever AMQP can hold it, and that nothing else gets
// into a property: more than 255 bytes there end the connection of all requests.
func TestContentType(t *testing.T) {
	t.Parallel()
	const unknown = "application/octet-stream"
	for _, row := range []struct{ name, value, want string }{
		{"plain", "text/plain", "text/plain"},
		{"with parameters", `multipart/form-data; boundary="a b"`, `multipart/form-data; boundary="a b"`},
		{"none", "", unknown},
		{"255 bytes", strings.Repeat("a", 255), strings.Repeat("a", 255)},
		{"256 bytes", strings.Repeat("a", 256), unknown},
		{"330 bytes", "multipart/form-data; boundary=" + strings.Repeat("b", 300), unknown},
		{"every printable character", printable(), printable()},
		{"UTF-8", "text/plän", unknown},
		{"Latin-1", "text/pl\xe4n", unknown},
		{"a tab", "text/plain;\tcharset=utf-8", unknown},
		{"a line end", "text/plain\r\nX: y", unknown},
		{"a zero byte", "text/plain\x00", unknown},
		{"delete", "text/plain\x7f", unknown},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if got := contentType(row.value); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

func printable() string {
	var b strings.Builder
	for c := byte(' '); c <= '~'; c++ {
		b.WriteByte(c)
	}
	return b.String()
}

func captured() *envelope.Request {
	return &envelope.Request{
		ID: "0190f3b2-7a1c-7cc0-8000-0123456789ab", Method: "PUT", Target: "/orders/42?x=1", Host: "api.example.com",
		Scheme: "https", Proto: "HTTP/1.1", Remote: "203.0.113.7:5000",
		ReceivedAt: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		Header:     http.Header{"Content-Type": {"application/json"}, "X-Tag": {"a", "", "b"}},
		Body:       []byte(`{"n":1}`),
	}
}

// seal has no limit.
func seal(r *envelope.Request) envelope.Sealed {
	sealed, err := r.Seal(math.MaxInt)
	if err != nil {
		panic(err)
	}
	return sealed
}

// TestToMessage holds the form of a message that programs in other languages rely on.
func TestToMessage(t *testing.T) {
	t.Parallel()
	r := captured()
	r.Header.Del("X-Tag") // the order of names has no meaning, and is not always the same
	want := amqp.Publishing{
		Headers:      amqp.Table{"fallback": r.Metadata()},
		ContentType:  "application/json",
		DeliveryMode: 2,
		MessageId:    r.ID,
		Timestamp:    r.ReceivedAt,
		Type:         "http.request",
		AppId:        "fallback",
		Body:         []byte(`{"n":1}`),
	}
	if diff := cmp.Diff(want, toMessage(seal(r), "text")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestToMessageWithoutBody holds that a request without a body is a readable message, and comes back without one.
func TestToMessageWithoutBody(t *testing.T) {
	t.Parallel()
	r := captured()
	r.Body = nil
	m := toMessage(seal(r), "A request has been sent via fallback API")
	if m.ContentType != "text/plain" || string(m.Body) != "A request has been sent via fallback API" {
		t.Errorf("got %s %q", m.ContentType, m.Body)
	}
	if back := receive(t, m); len(back.Body) > 0 {
		t.Errorf("it came back with the body %q", back.Body)
	}
}

func TestMessageRoundTrip(t *testing.T) {
	t.Parallel()
	want := captured()
	got := receive(t, toMessage(seal(want), "text"))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-sent +received:\n%s", diff)
	}
}

// receive is what a reader makes of a message that was published.
func receive(t *testing.T, m amqp.Publishing) *envelope.Request {
	t.Helper()
	r, err := FromMessage(amqp.Delivery{
		Headers: m.Headers, ContentType: m.ContentType, MessageId: m.MessageId, Timestamp: m.Timestamp, Body: m.Body,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestFromForeignMessage holds that a message of any other program is a POST of its body.
func TestFromForeignMessage(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	for _, row := range []struct {
		name string
		in   amqp.Delivery
		want envelope.Request
	}{
		{
			"the article's", amqp.Delivery{ContentType: "text/plain",
				Body: []byte("A request has been sent via fallback API")},
			envelope.Request{Header: http.Header{"Content-Type": {"text/plain"}},
				Body: []byte("A request has been sent via fallback API")},
		},
		{"nothing at all", amqp.Delivery{}, envelope.Request{Header: http.Header{}}},
		{
			"headers of its own", amqp.Delivery{Headers: amqp.Table{"x-count": int32(7)}, Body: []byte("b")},
			envelope.Request{Header: http.Header{}, Body: []byte("b")},
		},
		{
			"id and time", amqp.Delivery{MessageId: "7", Timestamp: at, Body: []byte("b")},
			envelope.Request{ID: "7", ReceivedAt: at.UTC(), Header: http.Header{}, Body: []byte("b")},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.want.Method, row.want.Target, row.want.Proto = "POST", "/", "HTTP/1.1" // no scheme: nobody saw one
			got, err := FromMessage(row.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&row.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestFromBadMessage holds that metadata which cannot be read is an error that names the message, and never half a
// request.
func TestFromBadMessage(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		meta any
	}{
		{"a number", int64(1)},
		{"bytes", []byte(`{"v":1}`)},
		{"a table", amqp.Table{"v": int64(1)}},
		{"nothing in it", ""},
		{"not JSON", "POST /"},
		{"another version", `{"v":2}`},
		{"another charset", `{"v":1,"charset":"utf-7"}`},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got, err := FromMessage(amqp.Delivery{MessageId: "id-7", Headers: amqp.Table{HeaderMetadata: row.meta},
				Body: []byte("b")})
			if err == nil {
				t.Fatalf("got %+v, want an error", got)
			}
			if !strings.Contains(err.Error(), "id-7") {
				t.Errorf("the error does not name the message: %v", err)
			}
		})
	}
}

// TestFromUnreadableMessage holds that a message whose headers could not be read is no POST of its body, but an error
// that says why; and that it stays so when it is moved.
func TestFromUnreadableMessage(t *testing.T) {
	t.Parallel()
	d := amqp.Delivery{MessageId: "id-7", Headers: amqp.Table{HeaderUnreadable: tooDeep,
		HeaderUnread: []byte("\x02in")}, Body: []byte("b")}
	if got, err := FromMessage(d); err == nil || !strings.Contains(err.Error(), "id-7") ||
		!strings.Contains(err.Error(), tooDeep) {
		t.Errorf("got %+v, %v", got, err)
	}
	moved := (&Delivery{message: d}).copy(map[string]any{"fallback-attempt": int64(0)})
	if diff := cmp.Diff(amqp.Table{HeaderUnreadable: tooDeep, HeaderUnread: []byte("\x02in"),
		"fallback-attempt": int64(0)}, moved.Headers); diff != "" {
		t.Errorf("moved: -want +got:\n%s", diff)
	}
	d.Headers[HeaderUnreadable] = strings.Repeat("x", 5000) // another program's
	if _, err := FromMessage(d); err == nil || len(err.Error()) > 300 {
		t.Errorf("got an error of %d bytes, want a short one", len(err.Error()))
	}
}
