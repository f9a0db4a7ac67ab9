package rabbit

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"fallback/functions/envelope"
)

// Options are what a [Publisher] needs.
type Options struct {
	// URL is the broker's, with the user and password: amqp://user:password@host:5672/vhost, or amqps.
	URL string
	// Queue is the name of the queue that messages go to, through the default exchange.
	Queue string
	// Text is the body of the messages of requests that have none.
	Text string
	// Channels is how many channels of the one connection publishes are spread over at most; 1 if it is not set.
	Channels int
	// InFlight bounds the publishes that wait for their confirm at the same time; 1024 if it is not set.
	InFlight int
	// Grace is how long publishes may go on over a connection that is no longer used for new ones: the longest deadline
	// of a publish. 5 s if it is not set.
	Grace time.Duration
	// QueueType asks another way than AMQP what type the queue has; nil if there is none. See
	// management.Client.QueueType.
	QueueType func(ctx context.Context, queue string) (string, error)
	// Log gets the changes of state: connected, lost, blocked, the queue gone and back.
	Log *slog.Logger

	socket socketFunc // for tests
}

// Publisher stores requests on one queue, over one connection that it makes when it is first needed and again whenever
// it is lost. It is safe for concurrent use; [Publisher.Close] ends it.
type Publisher struct {
	options Options
	*confirmer

	mu    sync.Mutex // guards knows
	knows *knowledge // of the queue, by the session that was last asked
}

// NewPublisher returns a Publisher that has not connected yet.
func NewPublisher(o Options) *Publisher {
	p := &Publisher{options: o}
	p.confirmer = newConfirmer(confirmerOptions{
		url: o.URL, channels: o.Channels, inFlight: o.InFlight, grace: o.Grace, log: o.Log, socket: o.socket,
		missing: func(ctx context.Context, s *session, _ string) error { return p.ensureQueue(ctx, s) },
	})
	return p
}

// Publish stores r and returns nil when the broker has confirmed that it did. Any other outcome is an error that wraps
// one of the [Failure] values. It returns when ctx ends, at the latest; ctx should end by a deadline and not because a
// client has gone away, since what has been sent cannot be called back.
func (p *Publisher) Publish(ctx context.Context, r envelope.Sealed) error {
	return p.store(ctx, p.options.Queue, toMessage(r, p.options.Text))
}

// Run keeps a connection up, and says in the log what is wrong with it or with the queue, until ctx ends. It is for
// programs that serve: without it, the first publish connects.
func (p *Publisher) Run(ctx context.Context) {
	for ctx.Err() == nil {
		s, err := p.get(ctx)
		if err != nil {
			sleep(ctx, p.untilRetry())
			continue
		}
		_ = p.Ready(ctx) // for the log
		select {
		case <-s.retired:
		case <-ctx.Done():
		}
	}
}

// State says whether there is a connection that a publish would go over, and whether the broker takes nothing on it,
// for want of memory or disk. It asks nobody.
func (p *Publisher) State() (connected, blocked bool) {
	s := p.current.Load()
	if s == nil || !s.usable() {
		return false, false
	}
	return true, s.blocked.Load()
}

// Close ends the connection and every goroutine of the publisher. Publishes under way fail, so it is for after the
// last one.
func (p *Publisher) Close() { p.close() }
