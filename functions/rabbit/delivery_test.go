package rabbit

import (
	"errors"
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
			"CC": []any{"q"}, "BCC": []any{"q"}, "x-death": []any{}, "x-delivery-count": int64(3),
			"x-first-death-queue": "q", "x-last-death-reason": "expired",
		},
		ContentType: "application/json", ContentEncoding: "gzip", DeliveryMode: 1, Priority: 3, CorrelationId: "c",
		ReplyTo:    "r",
		Expiration: "1000", MessageId: "id", Type: "t", UserId: "somebody", AppId: "a", Body: []byte("body"),
	}}
	got := d.copy(map[string]any{"fallback-attempt": int64(2), "fallback-reason": nil})
	want := amqp.Publishing{
		Headers:     amqp.Table{"fallback": "{}", "fallback-attempt": int64(2), "x-mine": "stays"},
		ContentType: "application/json", ContentEncoding: "gzip", DeliveryMode: amqp.Persistent, Priority: 3,
		CorrelationId: "c",
		ReplyTo:       "r", MessageId: "id", Type: "t", AppId: "a", Body: []byte("body"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	first, second := &Delivery{message: amqp.Delivery{Body: []byte("b")}},
		&Delivery{message: amqp.Delivery{Body: []byte("b")}}
	if id := first.Identify(); id == "" || id != first.copy(nil).MessageId || id == second.copy(nil).MessageId {
		t.Errorf("without an id: it gets %q and is moved with %q, another with %q", id, first.copy(nil).MessageId,
			second.copy(nil).MessageId)
	}
}

// TestLostAck holds that who has delivered a message and cannot say so is told that, and not that the broker is away.
func TestLostAck(t *testing.T) {
	t.Parallel()
	d := &Delivery{message: amqp.Delivery{Acknowledger: gone{}}}
	for name, settle := range map[string]func() error{"done": d.Done, "return": d.Requeue} {
		if err := settle(); !errors.Is(err, ErrLostAck) || errors.Is(err, ErrUnavailable) ||
			!errors.Is(err, amqp.ErrClosed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// gone is a channel that is no more.
type gone struct{}

func (gone) Ack(uint64, bool) error        { return amqp.ErrClosed }
func (gone) Reject(uint64, bool) error     { return amqp.ErrClosed }
func (gone) Nack(uint64, bool, bool) error { return amqp.ErrClosed }
