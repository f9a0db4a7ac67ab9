package rabbit

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// perChannel is how many publishes are in flight on each channel before another one is used, too. The broker confirms
// several of one channel with one ack, and many channels keep more of its processes at work: 16 in flight did a tenth
// more on one channel than on four, and had their answers a fifth sooner; 512 a twentieth less. The price: a message
// that makes the broker close its channel takes more with it, to be sent again.
const perChannel = 64

// session is one connection with its confirm channels. It is used until the first doubt and then replaced.
type session struct {
	*link
	channels []*channel
	next     atomic.Uint32 // counts publishes
	opened   time.Time
	closes   chan *amqp.Error   // read by watch, as blocks is
	blocks   chan amqp.Blocking // that the broker takes nothing, and that it does again

	blocked atomic.Bool   // between connection.blocked and connection.unblocked
	late    atomic.Bool   // a confirm was late: when the block ends, the session does
	givenUp atomic.Bool   // retired at once because of a late confirm
	retired chan struct{} // closed when no new publish may use the session
	once    sync.Once
	watched chan struct{} // closed when watch has returned
}

// openSession connects and opens channels, each ready for as many publishes as may be in flight.
func openSession(ctx context.Context, o confirmerOptions) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	l, err := dial(ctx, o.url, "fallback publisher", o.socket)
	if err != nil {
		return nil, err
	}
	defer l.endWith(ctx)()

	s := &session{
		link: l, opened: time.Now(), retired: make(chan struct{}), watched: make(chan struct{}),
		closes: l.conn.NotifyClose(make(chan *amqp.Error, 1)),
		blocks: l.conn.NotifyBlocked(make(chan amqp.Blocking, 16)),
	}
	for range o.channels {
		ch, err := openChannel(l.conn, o.inFlight)
		if err != nil {
			l.close()
			return nil, err
		}
		s.channels = append(s.channels, ch)
	}
	return s, nil
}

// watch follows the connection's state until it is lost, and returns why; nil after an orderly close.
func (s *session) watch(onBlock func(reason string), onUnblock func()) error {
	defer close(s.watched)
	defer s.retire()
	blocks := s.blocks
	for {
		select {
		case err := <-s.closes:
			if err == nil {
				return nil
			}
			return err
		case b, open := <-blocks:
			switch {
			case !open:
				blocks = nil
			case b.Active:
				s.blocked.Store(true)
				onBlock(b.Reason)
			default:
				s.blocked.Store(false)
				onUnblock()
				if s.late.Load() {
					s.retire()
				}
			}
		}
	}
}

// retire keeps new publishes away; those in flight go on.
func (s *session) retire() { s.once.Do(func() { close(s.retired) }) }

// usable says whether a new publish may go this way.
func (s *session) usable() bool {
	select {
	case <-s.retired:
		return false
	default:
		return s.alive()
	}
}

// publish sends one message to the queue and waits for what the broker makes of it. A nil error means stored.
func (s *session) publish(ctx context.Context, queue string, m amqp.Publishing) error {
	if s.blocked.Load() {
		return ErrBlocked
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: no time is left to ask it", ErrUnavailable)
	}
	size := len(m.Body) + metadataSize(m)
	if err := s.wire.reserve(ctx, size); err != nil {
		return fmt.Errorf("%w: it does not read", ErrUnavailable)
	}
	s.wire.batchHint.Add(1)
	defer s.wire.batchHint.Add(-1)
	ch := s.channel()
	confirm, err := ch.PublishWithDeferredConfirm("", queue, true, false, m)
	s.wire.unreserve(size)
	if err != nil {
		return ch.lost(err)
	}
	select {
	case <-confirm.Done():
	case <-ctx.Done():
		s.tooLate()
		return ErrUnconfirmed
	}
	switch {
	case !confirm.Acked() && ch.IsClosed():
		return ch.lost(nil)
	case !confirm.Acked():
		return ErrRefused
	case ch.wasReturned(returnKey{queue, m.MessageId}):
		return ErrUnroutable
	}
	return nil
}

// channel is the one for the next publish.
func (s *session) channel() *channel {
	spread := min(1+int(s.wire.batchHint.Load())/perChannel, len(s.channels))
	return s.channels[s.next.Add(1)%uint32(spread)]
}

// tooLate takes the session out of use: a return that comes with the late confirm would stay in a buffer that has room
// only for what is waited for. A blocked session is out of use anyway; it goes when the block ends.
func (s *session) tooLate() {
	s.late.Store(true)
	if !s.blocked.Load() {
		s.givenUp.Store(true)
		s.retire()
	}
}
