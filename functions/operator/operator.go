// Package operator is what people do to the queues by hand: they look at what waits, put parked requests back, delete
// them, and count. Settings come in, values go out; asking, printing and exit codes are the command's.
//
// A message is taken as any consumer takes it, and requeued unless something was done with it: while somebody looks, a
// drain does not get it. When ctx ends, a method finishes the message that it is at, requeues the rest and closes its
// connections, which may take half a minute with a slow broker. Errors of the broker wrap the Failure values of rabbit,
// but for what the management API answers.
package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"fallback/functions/config"
	"fallback/functions/rabbit"
)

// MostUnacked bounds how many messages are unacked at a time. Those that are passed over stay unacked until the end,
// since they would come again at once. Each costs the broker 5 kB: with 65,535 of them, the most that AMQP's 16 bits
// can say, a broker with 512 MB raised its memory alarm and took no more messages.
const MostUnacked = 30_000

const (
	// requeueTime bounds what is done when something has ended: to requeue the rest, and to count.
	requeueTime = 5 * time.Second
	// settleTime bounds what is done with one message; what is begun is finished.
	settleTime = 10 * time.Second
)

// Operator works on the queues of the settings, as the user in the broker's URL.
type Operator struct {
	config config.Config
	log    *slog.Logger
}

// New connects to nothing yet. The log gets what is wrong with the broker's connections.
func New(c config.Config, log *slog.Logger) *Operator { return &Operator{c, log} }

func (o *Operator) source(queue string) *rabbit.Source {
	return rabbit.NewSource(rabbit.SourceOptions{URL: o.config.AMQPServerURL.Reveal(), Queue: queue, Log: o.log})
}

// deed is what was done with a message.
type deed int

const (
	nothing deed = iota // it is to be requeued
	settled             // it is off the queue
)

// visit returns errEnough to end each, which returns nil then.
var errEnough = errors.New("no more are wanted")

// each calls visit for each message that is on the queue now, in order. What visit leaves unsettled is returned
// unacked, no more than most of them, to be requeued; their bodies are gone.
func each(ctx context.Context, s *rabbit.Source, most int,
	visit func(*rabbit.Delivery) (deed, error)) (unsettled []*rabbit.Delivery, err error) {
	waiting, err := s.Waiting(ctx)
	if err != nil || waiting == 0 {
		return nil, err
	}
	prefetch := min(waiting, most)
	if err := s.Take(ctx, prefetch); err != nil {
		return nil, explained(err)
	}
	for range waiting { // and not what comes meanwhile, nor what comes again
		if len(unsettled) == prefetch {
			break // nothing more is sent
		}
		d, err := s.Next(ctx)
		if errors.Is(err, rabbit.ErrDry) {
			break // another has the rest
		}
		if err != nil {
			return unsettled, explained(err)
		}
		done, err := visit(d)
		if done == nothing {
			d.Forget() // a whole queue of bodies would not fit
			unsettled = append(unsettled, d)
		}
		if errors.Is(err, errEnough) {
			break
		}
		if err != nil {
			return unsettled, err
		}
	}
	return unsettled, nil
}

// explained says what to do about a message that cannot be had.
func explained(err error) error {
	if errors.Is(err, rabbit.ErrHandOver) {
		return fmt.Errorf("the next message cannot be had: %w; docs/drain.md says what to do", err)
	}
	return err
}

// requeue requeues messages in their order, and waits until whoever looks next sees all of them.
func requeue(s *rabbit.Source, unsettled []*rabbit.Delivery) {
	ctx, cancel := context.WithTimeout(context.Background(), requeueTime)
	defer cancel()
	_ = s.Stop(ctx) // first: what is requeued would come again at once
	for _, d := range unsettled {
		_ = d.Requeue() // else it is with the connection's end
	}
	for {
		if left, err := s.Left(ctx, len(unsettled)); err != nil || left >= len(unsettled) {
			return
		}
	}
}
