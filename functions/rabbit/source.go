package rabbit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/envelope"
)

// SourceOptions are what a [Source] needs.
type SourceOptions struct {
	// URL is the broker's, with a user that may read the queue, and publish if deliveries are to be moved.
	URL string
	// Queue is where requests are taken from.
	Queue string
	// Log gets the changes of state of the connection that moves deliveries.
	Log *slog.Logger
}

// Source takes messages off one queue and keeps each until it is settled: done, given back, or moved to another queue.
// When more bytes come than it should hold, it forgets the bodies of the last messages, and gives these back later.
//
// It has two connections, since a broker under an alarm stops reading those that publish, and with them their acks: one
// to take, made by [Source.Take], and one to move, made when it is needed. Both are made anew when they are lost; what was
// in hand then comes again, to whoever takes it. A call ends the connection when the broker has been silent for three
// seconds, or has not answered for five minutes: till then, the answer may be behind large messages on a slow line. Methods
// are for one goroutine at a time, but for Next, which may be called beside Take, and for those of deliveries.
type Source struct {
	options SourceOptions
	mover   *Publisher

	conn    *amqp.Connection
	wire    *wire
	channel *amqp.Channel
	tag     int  // of the last consumer
	taking  bool // it has not been cancelled

	more chan struct{} // holds a token when ready or lost may have changed
	work sync.WaitGroup

	mu         sync.Mutex // guards the rest
	ready      []amqp.Delivery
	readyBytes int             // of their bodies
	aside      []amqp.Delivery // without their bodies, for which there was no room; they go back when there is
	cancelled  int             // the last consumer that we have cancelled
	lost       bool            // the connection or the consumer is gone, and nothing more will come
}

const (
	// mostReadyBytes bounds the bodies of messages that have come and that Next has not returned; one alone may be larger.
	// The broker knows no such bound: it sends as many messages as may be in hand, whatever their size.
	mostReadyBytes = 24 << 20
	// longestAnswer bounds the wait for an answer of the broker that is behind the bodies of messages on a slow line. Where
	// nothing comes at all, dialTimeout does.
	longestAnswer = 5 * time.Minute
)

// NewSource returns a Source that has not connected yet.
func NewSource(o SourceOptions) *Source {
	return &Source{
		options: o, more: make(chan struct{}, 1),
		mover: NewPublisher(Options{URL: o.URL, Log: o.Log}),
	}
}

// Waiting is how many messages are ready on the queue. The error wraps a [Failure]. While messages are taken, those that
// the broker had sent before it answered have come when Waiting returns, but what it was about to send may be neither ready
// nor here: there is nothing more when two answers in a row say 0, and nothing has come.
func (s *Source) Waiting(ctx context.Context) (int, error) {
	kept := s.conn
	waiting, err := s.waiting(ctx)
	if errors.Is(err, ErrUnavailable) && ctx.Err() == nil && s.conn == kept && kept != nil && !s.taking {
		// A process that was frozen finds out only now that the broker has given its connection up.
		s.disconnect()
		return s.waiting(ctx)
	}
	return waiting, err
}

func (s *Source) waiting(ctx context.Context) (int, error) {
	if err := s.connect(ctx); err != nil {
		return 0, err
	}
	defer s.bound(ctx)()
	var waiting int
	question := func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(s.options.Queue, true, false, false, false, nil)
		waiting = q.Messages
		return err
	}
	if s.taking { // on another channel, the answer could overtake a message
		err := question(s.channel)
		return waiting, s.failure(err)
	}
	err := ask(s.conn, question)
	return waiting, s.failure(err)
}

// Quiet is for how long the broker has sent nothing. A large message is long under way on a slow line.
func (s *Source) Quiet() time.Duration {
	if s.wire == nil {
		return math.MaxInt64
	}
	return s.wire.silence()
}

// Left is Waiting, when what has just been given back is counted again: the broker does that a moment later, and what it
// says until then is too little. It asks until the answer stays the same, or is enough already: where more come all the
// time, it never stays the same.
func (s *Source) Left(ctx context.Context, enough int) (int, error) {
	const pause, tries = 30 * time.Millisecond, 30
	last, err := s.Waiting(ctx)
	for tried := 0; err == nil && last < enough && tried < tries; tried++ {
		sleep(ctx, pause)
		var now int
		if now, err = s.Waiting(ctx); err != nil || now == last {
			break
		}
		last = now
	}
	return last, err
}

// Take begins to take messages, with at most ahead of them not settled. Called again, it changes ahead for those to come.
func (s *Source) Take(ctx context.Context, ahead int) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	defer s.bound(ctx)()
	if err := s.cancel(); err != nil {
		return s.failure(err)
	}
	if err := s.giveBackAside(); err != nil {
		return s.failure(err)
	}
	if err := s.channel.Qos(ahead, 0, false); err != nil {
		return s.failure(err)
	}
	s.wire.waiting.Store(int64(ahead / 4)) // acks gather like publishes do, but less: each makes room for what comes next
	s.tag++
	deliveries, err := s.channel.Consume(s.options.Queue, s.consumer(), false, false, false, false, nil)
	if err != nil {
		return s.failure(err)
	}
	s.taking = true
	s.work.Add(1)
	go s.collect(s.tag, deliveries)
	return nil
}

func (s *Source) consumer() string { return fmt.Sprintf("fallback-%d", s.tag) }

// cancel ends the present consumer, if there is one. What it has been sent is still to be settled.
func (s *Source) cancel() error {
	if !s.taking || s.channel.IsClosed() {
		return nil
	}
	s.taking = false
	s.mu.Lock()
	s.cancelled = s.tag
	s.mu.Unlock()
	return s.channel.Cancel(s.consumer(), false)
}

// collect moves what a consumer is sent to ready, until it is cancelled, by us or by the broker, or the connection lost.
func (s *Source) collect(tag int, deliveries <-chan amqp.Delivery) {
	defer s.work.Done()
	for d := range deliveries {
		s.mu.Lock()
		s.arrived(d)
		s.mu.Unlock()
		s.signal()
	}
	s.mu.Lock()
	if s.cancelled < tag {
		s.lost = true
	}
	s.mu.Unlock()
	s.signal()
}

// arrived keeps a message, or sets it aside; the caller holds mu.
func (s *Source) arrived(d amqp.Delivery) {
	if len(s.ready) > 0 && s.readyBytes+len(d.Body) > mostReadyBytes {
		d.Body = nil
		s.aside = append(s.aside, d)
		return
	}
	s.ready = append(s.ready, d)
	s.readyBytes += len(d.Body)
}

// giveBackAside is for when there is room, or no consumer: they may come again at once.
func (s *Source) giveBackAside() error {
	s.mu.Lock()
	aside := s.aside
	s.aside = nil
	s.mu.Unlock()
	for _, d := range aside {
		if err := d.Nack(false, true); err != nil {
			return err
		}
	}
	return nil
}

func (s *Source) signal() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// Next is the next message, and waits for one as long as ctx lasts. It wraps [ErrUnavailable] when the connection is lost.
func (s *Source) Next(ctx context.Context) (*Delivery, error) {
	for {
		s.mu.Lock()
		lost := s.lost
		var next *amqp.Delivery
		if len(s.ready) > 0 && !lost {
			first := s.ready[0]
			s.ready[0] = amqp.Delivery{} // the slice would keep its body
			next, s.ready = &first, s.ready[1:]
			s.readyBytes -= len(first.Body)
		}
		s.mu.Unlock()
		switch {
		case lost:
			return nil, fmt.Errorf("%w: it was lost", ErrUnavailable)
		case next != nil:
			return &Delivery{message: *next, mover: s.mover}, nil
		}
		if err := s.giveBackAside(); err != nil { // there is room for them now
			return nil, s.failure(err)
		}
		select {
		case <-s.more:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Stop takes no more, and gives back what Next has not returned. What it has returned is still to be settled, and can be.
func (s *Source) Stop(ctx context.Context) error {
	if s.conn == nil {
		return nil
	}
	defer s.bound(ctx)()
	if err := s.cancel(); err != nil {
		return s.failure(err)
	}
	s.work.Wait() // the client closes a cancelled consumer's deliveries when all have been read
	s.mu.Lock()
	s.aside = append(s.ready, s.aside...)
	s.ready, s.readyBytes = nil, 0
	s.mu.Unlock()
	return s.failure(s.giveBackAside())
}

// Close ends the connections. What is not settled goes back to the queue.
func (s *Source) Close() {
	s.mover.Close()
	s.disconnect()
}

func (s *Source) disconnect() {
	if s.conn == nil {
		return
	}
	closeConnection(s.conn, s.wire)
	s.work.Wait()
	s.conn, s.channel, s.tag, s.taking = nil, nil, 0, false
	s.mu.Lock()
	s.ready, s.readyBytes, s.aside, s.cancelled, s.lost = nil, 0, nil, 0, false
	s.mu.Unlock()
}

// connect makes the connection and its channel, unless they are there.
func (s *Source) connect(ctx context.Context) error {
	s.mu.Lock()
	lost := s.lost
	s.mu.Unlock()
	if s.conn != nil && !s.conn.IsClosed() && !s.channel.IsClosed() && !lost {
		return nil
	}
	s.disconnect()
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, w, err := connect(ctx, s.options.URL, "fallback drain")
	if err != nil {
		return fmt.Errorf("%w: %w (%s)", ErrUnavailable, err, hint(err))
	}
	defer closeWith(ctx, w)()
	channel, err := conn.Channel()
	if err != nil {
		closeConnection(conn, w)
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s.conn, s.wire, s.channel = conn, w, channel
	return nil
}

// bound ends the connection when ctx ends, or the broker takes too long to answer, unless it is released before. As long as
// something comes, the answer may be behind that.
func (s *Source) bound(ctx context.Context) (release func()) {
	ctx, cancel := context.WithTimeout(ctx, longestAnswer)
	stop := closeWith(ctx, s.wire)
	w, begin := s.wire, time.Now()
	go func() {
		for ctx.Err() == nil {
			left := dialTimeout - min(time.Since(begin), w.silence())
			if left <= 0 {
				cancel()
				return
			}
			sleep(ctx, left)
		}
	}()
	return func() {
		stop()
		cancel()
	}
}

// failure is an error of the client library as one of ours.
func (s *Source) failure(err error) error {
	switch code(err) {
	case 0:
		return nil
	case amqp.NotFound:
		return fmt.Errorf("%w: %s", ErrUnroutable, s.options.Queue)
	case amqp.AccessRefused:
		return fmt.Errorf("%w: %w", ErrNotAllowed, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

const (
	// HeaderAttempt is the message header with the number of replays that have been tried.
	HeaderAttempt = "fallback-attempt"
	// HeaderRedrivenAt is the one with the time when an operator put the message back on the queue: RFC 3339, UTC.
	HeaderRedrivenAt = "fallback-redriven-at"
)

// Delivery is a message in hand. It is settled once, by Done, Return or Move; unsettled, it goes back to the queue with
// the connection.
type Delivery struct {
	message amqp.Delivery
	mover   *Publisher
}

// Request is the request that the message carries, see [FromMessage].
func (d *Delivery) Request() (*envelope.Request, error) { return FromMessage(d.message) }

// ID is the message's id; empty if it has none.
func (d *Delivery) ID() string { return d.message.MessageId }

// Identify is the message's id. One of another program that has none gets one now, which goes with it when it is moved,
// and not when it is given back: then it is as it was. What it says is no id: two may say the same, and mean both.
func (d *Delivery) Identify() string {
	if d.message.MessageId == "" {
		d.message.MessageId = uuid.Must(uuid.NewV7()).String()
	}
	return d.message.MessageId
}

// Attempts is how many replays have been tried.
func (d *Delivery) Attempts() int {
	const most = 1 << 20 // whoever wrote more did not count
	switch n := d.message.Headers[HeaderAttempt].(type) {
	case int32:
		return int(min(max(n, 0), most))
	case int64:
		return int(min(max(n, 0), most))
	}
	return 0
}

// Size is how many bytes its body has.
func (d *Delivery) Size() int { return len(d.message.Body) }

// RedrivenAt is when an operator has put it back on the queue; zero if none has.
func (d *Delivery) RedrivenAt() time.Time {
	at, _ := time.Parse(time.RFC3339, d.Header(HeaderRedrivenAt))
	return at
}

// Header is the value of one of the message's own headers, for people; empty if there is none.
func (d *Delivery) Header(name string) string {
	if v, ok := d.message.Headers[name]; ok {
		return fmt.Sprint(v)
	}
	return ""
}

// Forget drops the body, for who keeps many in hand: what is left to do is Return.
func (d *Delivery) Forget() { d.message.Body = nil }

// Done takes the message off the queue for good.
func (d *Delivery) Done() error { return settled(d.message.Ack(false)) }

// Return gives the message back to the queue.
func (d *Delivery) Return() error { return settled(d.message.Nack(false, true)) }

func settled(err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// Move puts the message on another queue, with headers of ours set, or taken off where the value is nil, and takes it off
// this one when the broker has confirmed that: never before. On an error it is still in hand, and may be on both.
func (d *Delivery) Move(ctx context.Context, queue string, headers map[string]any) error {
	if channel, ok := d.message.Acknowledger.(interface{ IsClosed() bool }); ok && channel.IsClosed() {
		return fmt.Errorf("%w: it was lost, and what was in hand comes again", ErrUnavailable) // moved too, it would be on both
	}
	if err := d.mover.store(ctx, queue, d.copy(headers)); err != nil {
		return err
	}
	return d.Done()
}

// copy is the message to be published again.
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
	return amqp.Publishing{
		Headers: table, ContentType: m.ContentType, ContentEncoding: m.ContentEncoding, DeliveryMode: amqp.Persistent,
		Priority: m.Priority, CorrelationId: m.CorrelationId, ReplyTo: m.ReplyTo, MessageId: d.Identify(), Timestamp: m.Timestamp,
		Type: m.Type, AppId: m.AppId, Body: m.Body, // with an id, to be told from others if it is returned; without Expiration, which would delete it, and UserId, which is another's
	}
}

// brokersOwn are the headers that the broker acts on. Its accounts, published again, leave messages stuck on some versions;
// CC and BCC are further queues, which have had their copy.
var brokersOwn = map[string]bool{
	"CC": true, "BCC": true,
	"x-death": true, "x-delivery-count": true, "x-acquired-count": true,
	"x-first-death-exchange": true, "x-first-death-queue": true, "x-first-death-reason": true,
	"x-last-death-exchange": true, "x-last-death-queue": true, "x-last-death-reason": true,
}
