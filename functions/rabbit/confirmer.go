package rabbit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// confirmerOptions are what a confirmer needs.
type confirmerOptions struct {
	url      string
	channels int           // of a connection, at most, that publishes are spread over
	inFlight int           // publishes that may wait for their confirm at the same time
	grace    time.Duration // publishes may go on for as long on a connection that is no longer used for new ones
	log      *slog.Logger
	// missing, if it is set, is asked when a queue was not there: nil says that it is now.
	missing func(ctx context.Context, s *session, queue string) error
	socket  socketFunc // for tests
}

// confirmer stores messages on any queue: it answers nil when the broker has confirmed one, and not before. The
// package comment has its rules. It is safe for concurrent use.
type confirmer struct {
	*sessions
	options  confirmerOptions
	inFlight atomic.Int64
	wasFull  atomic.Bool // a queue has been full: from then on, it is worth telling that one is not
}

// newConfirmer returns one that has not connected yet.
func newConfirmer(o confirmerOptions) *confirmer {
	o.channels = max(o.channels, 1)
	if o.inFlight <= 0 {
		o.inFlight = 1024
	}
	if o.grace <= 0 {
		o.grace = 5 * time.Second
	}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	return &confirmer{sessions: newSessions(o), options: o}
}

// store puts a message on a queue. It returns when ctx ends, at the latest; any error wraps one of the [Failure]
// values.
func (c *confirmer) store(ctx context.Context, queue string, message amqp.Publishing) error {
	if c.inFlight.Add(1) > int64(c.options.inFlight) {
		c.inFlight.Add(-1)
		return ErrOverloaded
	}
	defer c.inFlight.Add(-1)

	var lost, found bool
	doubts := nackDoubts
	for {
		s, err := c.get(ctx)
		if err == nil {
			err = s.publish(ctx, queue, message)
			if errors.Is(err, ErrRefused) && len(doubts) > 0 && !c.states.is(full(queue), "full") {
				sleep(ctx, doubts[0])
				if doubts = doubts[1:]; ctx.Err() == nil {
					continue
				}
			}
			c.note(s, queue, err)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errLost) && !lost:
			lost = true
			continue
		case errors.Is(err, ErrUnroutable) && c.options.missing != nil && !found:
			found = c.options.missing(ctx, s, queue) == nil
			if found || s.conn.IsClosed() && ctx.Err() == nil {
				continue // RabbitMQ 4.0 may crash over a question about a queue that is being deleted (541)
			}
		}
		if lost && !errors.Is(err, ErrUnconfirmed) {
			// not %w: the first try may have stored it, whatever became of this one
			err = fmt.Errorf("%w: %v", ErrUnconfirmed, err)
		}
		return err
	}
}

// nackDoubts are the waits before a message that was nacked is sent again, for as long as its queue is not known to be
// full: the broker also nacks what was under way to a queue that is being deleted, and then, for the milliseconds in
// which that queue still has its name, what follows.
var nackDoubts = []time.Duration{10 * time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond}

// full is the topic of the states under which a queue is known to be full.
func full(queue string) string { return "full " + queue }

// note draws the conclusions for the publishes to come from what became of one, and says in the log what an operator
// should know.
func (c *confirmer) note(s *session, queue string, err error) {
	switch {
	case err == nil:
		if c.wasFull.Load() {
			c.states.change(full(queue), "", slog.LevelInfo, "the queue takes requests again", "queue", queue)
		}
	case errors.Is(err, errLost):
		s.retire()
	case errors.Is(err, ErrRefused):
		c.wasFull.Store(true)
		c.states.change(full(queue), "full", slog.LevelError, "the queue is full and refuses requests", "queue", queue,
			"hint", "empty it, or raise max-length and max-length-bytes in its policy")
	case errors.Is(err, ErrNotAllowed):
		s.retire() // its channel is closed
		c.holdOff(err)
		c.notAllowed(err)
	case s.givenUp.Load() && c.current.Load() == s:
		c.states.change("connection", "late", slog.LevelWarn,
			"no confirm in time; taking another connection to the broker")
	}
}

// notAllowed says in the log that the user may not publish.
func (c *confirmer) notAllowed(err error) {
	c.states.change("queue", "permission", slog.LevelError,
		"the broker's user may not publish: nothing can be stored or moved",
		"error", err, "hint", "give it write permission on amq.default, as rabbitmq/definitions.json does for "+
			"fallback-publisher and fallback-drainer")
}
