package rabbit

import (
	"context"
	"errors"
	"slices"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

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
	if err := d.Move(t.Context(), "parked", nil); !errors.Is(err, ErrLostAck) {
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
	body := make([]byte, MostReadyBytes/2)
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
	for _, d := range s.overflow {
		if d.Body != nil {
			t.Errorf("number %d is in the overflow with its body", d.DeliveryTag)
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
	body = make([]byte, MostReadyBytes+1) // one alone always has room
	send(6)
	next(6)
	if s.readyBytes != 0 || len(s.ready) != 0 || len(s.overflow) != 0 {
		t.Errorf("%d bytes, %d ready and %d aside in the end", s.readyBytes, len(s.ready), len(s.overflow))
	}
}
