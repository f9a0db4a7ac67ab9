package rabbit

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"
)

// TestCopy holds what a message is like that is published again: the same, without the broker's own accounts and what
// would delete it, and with an id to be told by.
func TestCopy(t *testing.T) {
	t.Parallel()
	d := &Delivery{message: amqp.Delivery{
		Headers: amqp.Table{
			"fallback": "{}", "fallback-attempt": int64(1), "fallback-reason": "old", "x-mine": "stays",
			"x-death": []any{}, "x-delivery-count": int64(3), "x-first-death-queue": "q", "x-last-death-reason": "expired",
		},
		ContentType: "application/json", ContentEncoding: "gzip", DeliveryMode: 1, Priority: 3, CorrelationId: "c", ReplyTo: "r",
		Expiration: "1000", MessageId: "id", Type: "t", UserId: "somebody", AppId: "a", Body: []byte("body"),
	}}
	got := d.copy(map[string]any{"fallback-attempt": int64(2), "fallback-reason": nil})
	want := amqp.Publishing{
		Headers:     amqp.Table{"fallback": "{}", "fallback-attempt": int64(2), "x-mine": "stays"},
		ContentType: "application/json", ContentEncoding: "gzip", DeliveryMode: amqp.Persistent, Priority: 3, CorrelationId: "c",
		ReplyTo: "r", MessageId: "id", Type: "t", AppId: "a", Body: []byte("body"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	d.message.MessageId = ""
	if first, second := d.copy(nil).MessageId, d.copy(nil).MessageId; first == "" || first == second {
		t.Errorf("without an id: got %q and %q, want two different ones", first, second)
	}
}

func TestAttempts(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		header any
		want   int
	}{{nil, 0}, {int32(3), 3}, {int64(7), 7}, {"7", 0}, {int64(-1), 0}, {int32(-5), 0}, {int64(1) << 62, 1 << 20}} {
		d := &Delivery{message: amqp.Delivery{Headers: amqp.Table{HeaderAttempt: row.header}}}
		if got := d.Attempts(); got != row.want {
			t.Errorf("%v: got %d, want %d", row.header, got, row.want)
		}
	}
}
