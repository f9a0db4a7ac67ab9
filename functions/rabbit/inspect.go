package rabbit

import (
	"context"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// QueueCount is how many messages are ready on a queue and how many consumers it has. Err says why that is not known:
// ErrUnroutable when there is no such queue, ErrNotAllowed when the user may not see it, ErrNotAsked after such a one.
type QueueCount struct {
	Queue     string
	Ready     int
	Consumers int
	Err       error
}

// Count asks the broker for the counts of queues, over a connection of its own, until one is refused: the queues that
// most users may see come first, and each refusal is an error in the broker's log. The error wraps [ErrUnavailable]; what
// the broker says of one queue is in its row.
func Count(ctx context.Context, url string, queues []string) ([]QueueCount, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, w, err := connect(ctx, url, "fallback queues")
	if err != nil {
		return nil, fmt.Errorf("%w: %w (%s)", ErrUnavailable, err, hint(err))
	}
	defer closeConnection(conn, w)
	defer closeWith(ctx, w)()

	counts := make([]QueueCount, 0, len(queues))
	refused := false
	for _, queue := range queues {
		count := QueueCount{Queue: queue}
		if refused {
			count.Err = ErrNotAsked
			counts = append(counts, count)
			continue
		}
		count.Err = ask(conn, func(ch *amqp.Channel) error {
			q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
			count.Ready, count.Consumers = q.Messages, q.Consumers
			return err
		})
		switch code(count.Err) {
		case amqp.NotFound:
			count.Err = ErrUnroutable
		case amqp.AccessRefused:
			count.Err, refused = ErrNotAllowed, true
		}
		counts = append(counts, count)
	}
	return counts, nil
}
