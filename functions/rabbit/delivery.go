package rabbit

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/envelope"
)

// Delivery is a message that the broker has sent to us, unacked. It is settled once, by Done, Requeue or Move;
// unsettled, it goes back to the queue with the connection.
type Delivery struct {
	message amqp.Delivery
	mover   *confirmer
	inbox   *inbox // that it came to; nil for one that came to none
	frame   int    // the largest that the broker takes
}

// Request is the request that the message carries, see [FromMessage].
func (d *Delivery) Request() (*envelope.Request, error) { return FromMessage(d.message) }

// ID is the message's id; empty if it has none.
func (d *Delivery) ID() string { return d.message.MessageId }

// Identify is the message's id. One of another program that has none gets one now, which goes with it when it is moved,
// and not when it is requeued: then it is as it was. Its content cannot serve: two equal messages may both be meant.
func (d *Delivery) Identify() string {
	if d.message.MessageId == "" {
		d.message.MessageId = uuid.Must(uuid.NewV7()).String()
	}
	return d.message.MessageId
}

// Size is how many bytes its body has.
func (d *Delivery) Size() int { return len(d.message.Body) }

// Header is the value of one of the message's own headers, for people; empty if there is none.
func (d *Delivery) Header(name string) string {
	if v, ok := d.message.Headers[name]; ok {
		return fmt.Sprint(v)
	}
	return ""
}

// Lost says that the connection that it came by is gone, so that it is requeued, or will be.
func (d *Delivery) Lost() bool {
	ch, ok := d.message.Acknowledger.(interface{ IsClosed() bool })
	return ok && ch.IsClosed()
}

// Forget drops the body, for those who keep many of them: what is left to do is Requeue.
func (d *Delivery) Forget() { d.message.Body = nil }

// Done takes the message off the queue for good. It wraps [ErrLostAck] when the connection that it came by is gone.
func (d *Delivery) Done() error { return d.settled(d.message.Ack(false), acked) }

// Requeue puts the message back to where it was: the broker may send it again at once. The error is as Done's.
func (d *Delivery) Requeue() error { return d.settled(d.message.Nack(false, true), requeued) }

func (d *Delivery) settled(err error, how settlement) error {
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLostAck, err)
	}
	if d.inbox != nil {
		d.inbox.settled(d.message, how)
	}
	return nil
}

// Move puts the message on another queue, with headers of ours set, or taken off where the value is nil, and takes it
// off this one when the broker has confirmed that: never before. On an error it is still unacked. With [ErrLostAck], it
// comes again; it is on the other queue, too, if that wraps [ErrCopied].
func (d *Delivery) Move(ctx context.Context, queue string, headers map[string]any) error {
	if d.Lost() {
		return ErrLostAck // moved too, it would be on both
	}
	if err := d.mover.store(ctx, queue, d.copy(headers)); err != nil {
		return err
	}
	if err := d.Done(); err != nil {
		return fmt.Errorf("%w: %w", ErrCopied, err)
	}
	return nil
}

// copy is the message to be published again: with an id, to be told from others if it is returned; without Expiration,
// which would delete it, and without UserId, which is another's.
func (d *Delivery) copy(headers map[string]any) amqp.Publishing {
	m := d.message
	table := amqp.Table{}
	for name, value := range m.Headers {
		if !brokersOwn[name] {
			table[name] = value
		}
	}
	for name, value := range headers {
		if value == nil {
			delete(table, name)
			continue
		}
		table[name] = value
	}
	fit(table, headers, d.frame)
	return amqp.Publishing{
		Headers: table, ContentType: m.ContentType, ContentEncoding: m.ContentEncoding, DeliveryMode: amqp.Persistent,
		Priority: m.Priority, CorrelationId: m.CorrelationId, ReplyTo: m.ReplyTo, MessageId: d.Identify(),
		Timestamp: m.Timestamp, Type: m.Type, AppId: m.AppId, Body: m.Body,
	}
}

// brokersOwn are the headers that the broker acts on. Its records, published again, leave messages stuck on some
// versions; CC and BCC are further queues, which have had their copy.
var brokersOwn = map[string]bool{
	"CC": true, "BCC": true,
	"x-death": true, "x-delivery-count": true, "x-acquired-count": true,
	"x-first-death-exchange": true, "x-first-death-queue": true, "x-first-death-reason": true,
	"x-last-death-exchange": true, "x-last-death-queue": true, "x-last-death-reason": true,
}
