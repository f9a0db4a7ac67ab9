package rabbit

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

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
			"CC": []any{"q"}, "BCC": []any{"q"}, "x-death": []any{}, "x-delivery-count": int64(3), "x-first-death-queue": "q", "x-last-death-reason": "expired",
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
	first, second := &Delivery{message: amqp.Delivery{Body: []byte("b")}}, &Delivery{message: amqp.Delivery{Body: []byte("b")}}
	if id := first.Identify(); id == "" || id != first.copy(nil).MessageId || id == second.copy(nil).MessageId {
		t.Errorf("without an id: it gets %q and is moved with %q, another with %q", id, first.copy(nil).MessageId, second.copy(nil).MessageId)
	}
}

func TestRedrivenAt(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 8, 32, 51, 0, time.UTC)
	for _, row := range []struct {
		header any
		want   time.Time
	}{{nil, time.Time{}}, {"2026-11-22T08:32:51Z", at}, {"yesterday", time.Time{}}, {int64(7), time.Time{}}} {
		d := &Delivery{message: amqp.Delivery{Headers: amqp.Table{HeaderRedrivenAt: row.header}}}
		if got := d.RedrivenAt(); !got.Equal(row.want) {
			t.Errorf("%v: got %s, want %s", row.header, got, row.want)
		}
	}
}

// returns remembers what is given back.
type returns struct{ tags []uint64 }

func (r *returns) Ack(uint64, bool) error    { return nil }
func (r *returns) Reject(uint64, bool) error { return nil }
func (r *returns) Nack(tag uint64, multiple, requeue bool) error {
	if requeue && !multiple {
		r.tags = append(r.tags, tag)
	}
	return nil
}

// IsClosed says that the channel is gone, and with it what was in hand.
func (r *returns) IsClosed() bool { return true }

// TestMoveWhenLost holds that a message which comes again is not moved as well.
func TestMoveWhenLost(t *testing.T) {
	t.Parallel()
	d := &Delivery{message: amqp.Delivery{Acknowledger: &returns{}}} // and no way to publish
	if err := d.Move(t.Context(), "parked", nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// TestMostReadyBytes holds that bodies which come faster than they are taken have a bound, and that what has no room is
// given back and not lost.
func TestMostReadyBytes(t *testing.T) {
	t.Parallel()
	s := NewSource(SourceOptions{URL: "amqp://127.0.0.1:1/"})
	t.Cleanup(s.Close)
	given := &returns{}
	body := make([]byte, mostReadyBytes/2)
	send := func(tags ...uint64) {
		t.Helper()
		deliveries := make(chan amqp.Delivery, len(tags))
		for _, tag := range tags {
			deliveries <- amqp.Delivery{DeliveryTag: tag, Acknowledger: given, Body: body}
		}
		close(deliveries)
		s.cancelled = 1
		s.work.Add(1)
		s.collect(1, deliveries)
	}
	next := func(want uint64) {
		t.Helper()
		d, err := s.Next(t.Context())
		if err != nil || d.message.DeliveryTag != want || d.Size() != len(body) {
			t.Fatalf("got %+v, %v, want number %d", d, err, want)
		}
	}
	send(1, 2, 3)
	next(1)
	send(4) // there is room again
	send(5)
	for _, d := range s.aside {
		if d.Body != nil {
			t.Errorf("number %d is set aside with its body", d.DeliveryTag)
		}
	}
	next(2)
	next(4)
	if len(given.tags) != 0 {
		t.Errorf("given back: %v, while others were ready", given.tags)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if d, err := s.Next(ended); err == nil || !slices.Equal(given.tags, []uint64{3, 5}) {
		t.Errorf("got %+v, and given back: %v, want 3 and 5", d, given.tags)
	}
	body = make([]byte, mostReadyBytes+1) // one alone always has room
	send(6)
	next(6)
	if s.readyBytes != 0 || len(s.ready) != 0 || len(s.aside) != 0 {
		t.Errorf("%d bytes, %d ready and %d aside in the end", s.readyBytes, len(s.ready), len(s.aside))
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
