package rabbit

import (
	"errors"
	"fmt"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
)

// errLost: the connection or channel went away before the outcome was known.
var errLost = errors.New("the connection was lost before the confirm")

// returnKey tells returns apart: the same message may be on its way twice, and to two queues.
type returnKey struct{ queue, id string }

// channel is an AMQP channel in confirm mode.
type channel struct {
	*amqp.Channel
	returns chan amqp.Return

	mu       sync.Mutex // guards the next two, and is held while returns is emptied into returned
	returned map[returnKey]int
	closed   closing
}

func openChannel(conn *amqp.Connection, inFlight int) (*channel, error) {
	ch, err := conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("open a channel: %w", err)
	}
	if err := ch.Confirm(false); err != nil {
		return nil, fmt.Errorf("turn on confirms: %w", err)
	}
	return &channel{
		Channel:  ch,
		returns:  ch.NotifyReturn(make(chan amqp.Return, inFlight)),
		closed:   closing{heard: ch.NotifyClose(make(chan *amqp.Error, 1))},
		returned: map[returnKey]int{},
	}, nil
}

// lost is the error of a publish on a channel that has been closed: errLost, or ErrNotAllowed when the broker has
// closed it because the user may not publish. The library tells why before it gives up the channel's confirms.
func (ch *channel) lost(err error) error {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	switch cause := ch.closed.why(); {
	case cause != nil && cause.Code == amqp.AccessRefused:
		return fmt.Errorf("%w: %w", ErrNotAllowed, cause)
	case cause != nil:
		return fmt.Errorf("%w: %w", errLost, cause)
	case err != nil:
		return fmt.Errorf("%w: %w", errLost, err)
	}
	return errLost
}

// wasReturned says whether the broker gave the message back. It is right only after the message's confirm: by then the
// library has put the return, which the broker sends first, into ch.returns.
func (ch *channel) wasReturned(key returnKey) bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	for {
		select {
		case r, open := <-ch.returns:
			if open {
				ch.returned[returnKey{r.RoutingKey, r.MessageId}]++
				continue
			}
			// The library has closed it with the channel; all that was in it has been read.
		default:
		}
		found := ch.returned[key]
		if found == 1 {
			delete(ch.returned, key)
		} else if found > 1 {
			ch.returned[key]--
		}
		return found > 0
	}
}
