package rabbit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// SourceOptions are what a [Source] needs.
type SourceOptions struct {
	// URL is the broker's, with a user that may read the queue, and publish if deliveries are to be moved.
	URL string
	// Queue is where requests are taken from.
	Queue string
	// Log gets the changes of state of the connection that moves deliveries.
	Log *slog.Logger

	socket socketFunc // for tests
}

// Source takes messages off one queue and keeps each until it is settled: done, requeued, or moved to another queue.
// When more bytes come than it should hold, it forgets the bodies of the last messages, and requeues these later.
//
// It has two connections, since a broker under an alarm stops reading those that publish, and with them their acks: one
// to take, made by [Source.Take], and one to move, made when it is needed. Both are made anew when they are lost; what
// was unacked then comes again, to whoever takes it. A call ends the connection when the broker has been silent for
// three seconds, or has not answered for five minutes: till then, the answer may be behind large messages on a slow
// line. A call whose ctx ends does so, too; then all that is unacked comes again. Methods are for one goroutine at a
// time, but for Next, which may be called beside Take, and for those of deliveries.
type Source struct {
	options SourceOptions
	mover   *confirmer
	inbox
	work sync.WaitGroup // of those that fill the inbox

	frame atomic.Int64 // the largest that the broker takes
	exact atomic.Bool  // the broker counts as come back only what was lost with its consumer

	// guards the rest, and is held while the broker is asked over channel: it takes one question at a time
	calls   sync.Mutex
	link    *link // nil while there is none
	channel *amqp.Channel
	tag     int     // of the last consumer
	taking  bool    // it has not been cancelled
	closed  closing // the connection

	passers []*Source // of Pass, which has them for itself
	passing int       // how many there are to be
}

// NewSource returns a Source that has not connected yet.
func NewSource(o SourceOptions) *Source {
	return newSource(o, newConfirmer(confirmerOptions{url: o.URL, log: o.Log, socket: o.socket}))
}

func newSource(o SourceOptions, mover *confirmer) *Source {
	return &Source{options: o, mover: mover, inbox: inbox{more: make(chan struct{}, 1), lull: lull{pause: idle}}}
}

// Waiting is how many messages are ready on the queue. The error wraps a [Failure].
func (s *Source) Waiting(ctx context.Context) (int, error) {
	s.calls.Lock()
	defer s.calls.Unlock()
	kept := s.link
	waiting, err := s.waiting(ctx)
	if errors.Is(err, ErrUnavailable) && ctx.Err() == nil && s.link == kept && kept != nil && !s.taking {
		// A process that was frozen finds out only now that the broker has given its connection up.
		s.disconnect()
		return s.waiting(ctx)
	}
	return waiting, err
}

// waiting is Waiting; the caller holds calls.
func (s *Source) waiting(ctx context.Context) (int, error) {
	if err := s.connect(ctx); err != nil {
		return 0, err
	}
	defer s.link.within(ctx)()
	if !s.taking {
		waiting, _, err := s.link.count(s.options.Queue)
		return waiting, classify(err)
	}
	return s.askBehind()
}

// askBehind asks how many messages are ready where the answer comes behind those that were sent before it: on another
// channel, it could overtake them.
func (s *Source) askBehind() (int, error) {
	q, err := s.channel.QueueDeclarePassive(s.options.Queue, true, false, false, false, nil)
	return q.Messages, classify(err)
}

// Left is Waiting when what we have requeued a moment ago is counted again: until then the broker says too little. It
// asks every 30 ms, until two answers in a row are the same or one is at least enough, and 30 times more at most. Where
// something was requeued less than 0.9 s before, it believes only after all of these that there is nothing. The error
// is as Waiting's.
func (s *Source) Left(ctx context.Context, enough int) (int, error) {
	const pause, tries = 30 * time.Millisecond, 30
	unsure := s.requeuedSince(time.Now().Add(-pause * tries))
	last, err := s.Waiting(ctx)
	for tried := 0; err == nil && last < enough && tried < tries; tried++ {
		sleep(ctx, pause)
		var now int
		if now, err = s.Waiting(ctx); err != nil || now == last && !(unsure && now == 0) {
			break
		}
		last = now
	}
	return last, err
}

// Take begins to take messages, with at most prefetch of them unacked. Called again, it changes prefetch for those to
// come. The error wraps a [Failure].
func (s *Source) Take(ctx context.Context, prefetch int) error {
	s.closePassers()
	return s.why(s.take(ctx, prefetch))
}

func (s *Source) take(ctx context.Context, prefetch int) error {
	s.calls.Lock()
	defer s.calls.Unlock()
	if err := s.connect(ctx); err != nil {
		return err
	}
	defer s.link.within(ctx)()
	begin, first := time.Now(), !s.taking
	if err := s.cancel(); err != nil {
		return classify(err)
	}
	if err := s.requeueOverflow(); err != nil {
		return classify(err)
	}
	if err := s.channel.Qos(prefetch, 0, false); err != nil {
		return classify(err)
	}
	// acks gather like publishes do, but less: each makes room for what comes next
	s.link.wire.batchHint.Store(int64(prefetch / 4))
	s.tag++
	s.open(s.consumer(), prefetch)
	deliveries, err := s.channel.Consume(s.options.Queue, s.consumer(), false, false, false, false, nil)
	if err != nil {
		s.inbox.close(s.tag)
		return classify(err)
	}
	if first {
		s.expect(time.Since(begin))
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
	s.inbox.close(s.tag) // before the broker hears of it: acks from now on may be behind that
	return s.channel.Cancel(s.consumer(), false)
}

// collect fills the inbox with what a consumer is sent, until it is cancelled, by us or by the broker, or the
// connection lost.
func (s *Source) collect(tag int, deliveries <-chan amqp.Delivery) {
	defer s.work.Done()
	for d := range deliveries {
		s.arrived(d)
	}
	s.ended(tag)
}

// Stop takes no more, and requeues what Next has not returned. What it has returned is still to be settled, and can
// be. The error wraps a [Failure].
func (s *Source) Stop(ctx context.Context) error {
	s.calls.Lock()
	defer s.calls.Unlock()
	if s.link == nil {
		return nil
	}
	defer s.link.within(ctx)()
	if err := s.cancel(); err != nil {
		return classify(err)
	}
	s.work.Wait() // the client closes a cancelled consumer's deliveries when all have been read
	return classify(s.requeueAll())
}

// Close ends the connections, when the broker has applied what was acked, which it waits for a second at most. What is
// not settled goes back to the queue.
func (s *Source) Close() {
	s.mover.close()
	s.closePassers()
	s.applyAcks()
	s.calls.Lock()
	defer s.calls.Unlock()
	s.disconnect()
}

// applyAcks waits until the broker has done what it was told. Of a quorum queue's acks, it lets no more than 32 be
// under way; those beyond wait in the channel, and are forgotten with it: what they were for would come again (the
// soft limit of rabbit_fifo_client). The end of a consumer is answered when all acks before it have been applied, so
// one is begun for that if there is none.
func (s *Source) applyAcks() {
	s.calls.Lock()
	connected, taking := s.link != nil && s.link.alive() && s.intact(), s.taking
	s.calls.Unlock()
	if !connected || !s.keepsBack() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if !taking && s.take(ctx, 1) != nil {
		return
	}
	_ = s.Stop(ctx)
}

// disconnect forgets the connection, and what came by it; the caller holds calls.
func (s *Source) disconnect() {
	if s.link == nil {
		return
	}
	s.link.close()
	s.work.Wait()
	s.link, s.channel, s.tag, s.taking = nil, nil, 0, false
	s.clear()
}

// connect makes the connection and its channel, unless they are there; the caller holds calls.
func (s *Source) connect(ctx context.Context) error {
	if s.link != nil && !s.link.conn.IsClosed() && s.intact() {
		return nil
	}
	s.disconnect()
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	l, err := dial(ctx, s.options.URL, "fallback drain", s.options.socket)
	if err != nil {
		return fmt.Errorf("%w: %w (%s)", ErrUnavailable, err, hint(err))
	}
	defer l.endWith(ctx)()
	ch, err := l.conn.Channel()
	if err != nil {
		l.close()
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s.frame.Store(int64(l.conn.Config.FrameSize))
	s.exact.Store(countsExactly(l.version()))
	s.link, s.channel, s.closed = l, ch, closing{heard: l.conn.NotifyClose(make(chan *amqp.Error, 1))}
	return nil
}

// CountsRequeues says that the broker counts what is requeued as come back: a RabbitMQ before 4.3, or one that has not
// said yet which it is. It may be called at any time.
func (s *Source) CountsRequeues() bool { return !s.exact.Load() }

// countsExactly says whether a RabbitMQ counts as come back only what was lost with its consumer.
func countsExactly(version string) bool {
	major, minor, ok := ParseVersion(version)
	return ok && (major > 4 || major == 4 && minor >= 3)
}

// intact says that the channel is open, and its consumer, if there is one, is the broker's still.
func (s *Source) intact() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.channel.IsClosed() && !s.lost
}
