package rabbit

import (
	"context"
	"errors"
	"fmt"
)

// QueueCount is how many messages are ready on a queue and how many consumers it has. Err says why that is not known:
// ErrUnroutable when there is no such queue, ErrNotAllowed when the user may not see it, ErrNotAsked after such a one.
type QueueCount struct {
	Queue     string
	Ready     int
	Consumers int
	Err       error
}

// Count asks the broker for the counts of queues, in their order, over a connection of its own, for three seconds at
// most. It asks for no more after one that the user may not see: each such refusal is an error in the broker's log. The
// error wraps [ErrUnavailable]; what the broker says of one queue is in its row.
func Count(ctx context.Context, rawURL string, queues []string) ([]QueueCount, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	l, err := dial(ctx, rawURL, "fallback queues", nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w (%s)", ErrUnavailable, err, hint(err))
	}
	defer l.close()
	defer l.endWith(ctx)()

	counts := make([]QueueCount, 0, len(queues))
	refused := false
	for _, queue := range queues {
		count := QueueCount{Queue: queue, Err: ErrNotAsked}
		if !refused {
			count.Ready, count.Consumers, err = l.count(queue)
			count.Err = refusal(err)
			refused = errors.Is(count.Err, ErrNotAllowed)
		}
		counts = append(counts, count)
	}
	return counts, nil
}
