package rabbit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/singleflight"

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
	// Channels is how many channels of the one connection publishes are spread over; 1 if it is not set.
	Channels int
	// InFlight bounds the publishes that wait for their confirm at the same time; 1024 if it is not set.
	InFlight int
	// Grace is for how long publishes may go on on a connection that is no longer used for new ones: the longest
	// deadline of a publish. 5 s if it is not set.
	Grace time.Duration
	// QueueType asks another way than AMQP what type the queue has; nil if there is none. See [Management.QueueType].
	QueueType func(ctx context.Context, queue string) (string, error)
	// Log gets the changes of state: connected, lost, blocked, the queue gone and back.
	Log *slog.Logger
}

// Publisher stores requests on one queue, over one connection that it makes when it is first needed and again whenever
// it is lost. It is safe for concurrent use; [Publisher.Close] ends it.
type Publisher struct {
	options Options
	states  states

	life context.Context // ends with Close: a Publisher has a life of its own, longer than any request's
	end  context.CancelFunc
	work sync.WaitGroup // every goroutine of the publisher

	current  atomic.Pointer[session]
	inFlight atomic.Int64
	dialling singleflight.Group // one try to connect at a time
	refusing atomic.Bool        // a queue has been full, so that there is something to say when it is not

	mu       sync.Mutex // guards the rest
	closed   bool
	failures int       // to connect, in a row
	retryAt  time.Time // no try before
	lastErr  error     // of the last try
}

// redialEvery is the least time between two connections, so that one that is lost again and again costs little.
const redialEvery = 100 * time.Millisecond

// NewPublisher returns a Publisher that has not connected yet.
func NewPublisher(o Options) *Publisher {
	o.Channels = max(o.Channels, 1)
	if o.InFlight <= 0 {
		o.InFlight = 1024
	}
	if o.Grace <= 0 {
		o.Grace = 5 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Publisher{options: o, states: states{log: o.Log}}
	p.life, p.end = context.WithCancel(context.Background())
	return p
}

// Publish stores r and returns nil when the broker has confirmed that it did. Any other outcome is an error that wraps
// one of the [Failure] values. It returns when ctx ends, at the latest; ctx should end by a deadline and not because a
// client has gone away, since what has been sent cannot be called back.
func (p *Publisher) Publish(ctx context.Context, r *envelope.Request) error {
	return p.store(ctx, p.options.Queue, toMessage(r, p.options.Text))
}

// store is Publish for any message and queue; only the publisher's own queue is looked for when it is missing.
func (p *Publisher) store(ctx context.Context, queue string, message amqp.Publishing) error {
	if p.inFlight.Add(1) > int64(p.options.InFlight) {
		p.inFlight.Add(-1)
		return ErrOverloaded
	}
	defer p.inFlight.Add(-1)

	var lost, ensured bool
	doubts := nackDoubts
	for {
		s, err := p.session(ctx)
		if err == nil {
			err = s.publish(ctx, queue, message)
			if errors.Is(err, ErrRefused) && len(doubts) > 0 && !p.states.is(full(queue), "full") {
				sleep(ctx, doubts[0])
				if doubts = doubts[1:]; ctx.Err() == nil {
					continue
				}
			}
			p.note(s, queue, err)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errLost) && !lost:
			lost = true
			continue
		case errors.Is(err, ErrUnroutable) && queue == p.options.Queue && !ensured:
			looked := p.ensureQueue(ctx, s)
			if ensured = looked == nil; ensured || s.conn.IsClosed() && ctx.Err() == nil {
				continue // RabbitMQ 4.0 may crash over a question about a queue that is being deleted (541)
			}
		}
		if lost && !errors.Is(err, ErrUnconfirmed) {
			err = fmt.Errorf("%w: %v", ErrUnconfirmed, err) // not %w: the first try may have stored it, whatever became of this one
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
func (p *Publisher) note(s *session, queue string, err error) {
	switch {
	case err == nil:
		if p.refusing.Load() {
			p.states.change(full(queue), "", slog.LevelInfo, "the queue takes requests again", "queue", queue)
		}
	case errors.Is(err, errLost):
		s.retire()
	case errors.Is(err, ErrRefused):
		p.refusing.Store(true)
		p.states.change(full(queue), "full", slog.LevelError, "the queue is full and refuses requests", "queue", queue,
			"hint", "empty it, or raise max-length and max-length-bytes in its policy")
	case errors.Is(err, ErrNotAllowed):
		s.retire() // its channel is closed
		p.holdOff(err)
		p.report(err)
	case s.givenUp.Load() && p.current.Load() == s:
		p.states.change("connection", "late", slog.LevelWarn, "no confirm in time; taking another connection to the broker")
	}
}

// holdOff keeps publishes away from the broker for a while: the next would be refused as this one, at the price of a
// connection.
func (p *Publisher) holdOff(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retryAt, p.lastErr = time.Now().Add(lookEvery), err
}

// Run keeps a connection up, and says in the log what is wrong with it or with the queue, until ctx ends. It is for
// programs that serve: without it, the first publish connects.
func (p *Publisher) Run(ctx context.Context) {
	for ctx.Err() == nil {
		s, err := p.session(ctx)
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

// State says whether there is a connection that a publish would go over, and whether the broker takes nothing on it, for
// want of memory or disk. It asks nobody.
func (p *Publisher) State() (connected, blocked bool) {
	s := p.current.Load()
	if s == nil || !s.usable() {
		return false, false
	}
	return true, s.blocked.Load()
}

// Close ends the connection and every goroutine of the publisher. Publishes under way fail, so it is for after the
// last one.
func (p *Publisher) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.end()
	p.work.Wait()
}

// session is the connection to use: the present one, or the outcome of the one try to connect that is under way or may
// now begin. It does not wait for a second try.
func (p *Publisher) session(ctx context.Context) (*session, error) {
	if s := p.current.Load(); s != nil && s.usable() {
		return s, nil
	}
	if p.untilRetry() > 0 {
		p.mu.Lock()
		defer p.mu.Unlock()
		return nil, p.lastErr
	}
	select {
	case r := <-p.dialling.DoChan("", func() (any, error) { return p.reconnect() }):
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*session), nil
	case <-ctx.Done():
		return nil, ErrUnavailable
	}
}

// reconnect makes a new session the current one.
func (p *Publisher) reconnect() (*session, error) {
	if !p.begin() {
		return nil, ErrClosed
	}
	defer p.work.Done()
	old := p.current.Load()
	if old != nil && old.usable() {
		return old, nil // made by a try that ended just now
	}
	if old != nil {
		old.retire()
		sleep(p.life, time.Until(old.opened.Add(redialEvery)))
	}
	s, err := openSession(p.life, p.options.URL, p.options.Channels, p.options.InFlight)
	if err != nil {
		return nil, p.failed(err)
	}
	p.mu.Lock()
	p.failures, p.retryAt = 0, time.Time{}
	p.mu.Unlock()
	p.states.forget("alarm")
	p.states.change("connection", "connected", slog.LevelInfo, "connected to the broker")
	p.current.Store(s)
	p.work.Add(2)
	go p.watch(s)
	go p.closeWhenRetired(s)
	return s, nil
}

// begin counts one more goroutine, unless the publisher is closed.
func (p *Publisher) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.work.Add(1)
	}
	return !p.closed
}

// failed notes a failed try to connect and when the next one may be.
func (p *Publisher) failed(err error) error {
	const first, longest = 100 * time.Millisecond, time.Second
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	wait := min(first<<min(p.failures, 10), longest)
	wait = wait/2 + rand.N(wait/2)
	p.failures++
	p.retryAt = time.Now().Add(wait)
	p.lastErr = fmt.Errorf("%w: %w", ErrUnavailable, err)
	p.states.change("connection", hint(err), slog.LevelError, "cannot connect to the broker; trying on",
		"error", err, "hint", hint(err))
	return p.lastErr
}

func (p *Publisher) untilRetry() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retryAt.IsZero() {
		return 0
	}
	return time.Until(p.retryAt)
}

func (p *Publisher) watch(s *session) {
	defer p.work.Done()
	err := s.watch(
		func(reason string) {
			p.states.change("alarm", reason, slog.LevelError, "the broker takes no messages", "reason", reason)
		},
		func() { p.states.change("alarm", "", slog.LevelInfo, "the broker takes messages again") },
	)
	if err != nil && p.life.Err() == nil && p.current.Load() == s && !s.givenUp.Load() {
		p.states.change("connection", "lost", slog.LevelWarn, "connection to the broker lost; connecting again", "error", err)
	}
}

// closeWhenRetired closes the session when those in flight on it have had their time.
func (p *Publisher) closeWhenRetired(s *session) {
	defer p.work.Done()
	select {
	case <-s.retired:
		grace := time.NewTimer(p.options.Grace)
		defer grace.Stop()
		select {
		case <-s.watched: // closed by the broker
		case <-grace.C:
		case <-p.life.Done():
		}
	case <-p.life.Done():
		s.retire()
	}
	closeConnection(s.conn, s.wire)
	<-s.watched
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
