package rabbit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/singleflight"
)

const (
	// dialTimeout bounds everything up to a usable connection, its channels included: at most 8 round trips, and short
	// enough that a broker that comes back while a try hangs is found again within five seconds.
	dialTimeout = 3 * time.Second
	// writeTimeout bounds one write to the broker.
	writeTimeout = 3 * time.Second
	// closeTimeout bounds the good-bye.
	closeTimeout = time.Second
	// heartbeat is asked for; the broker may want a shorter one.
	heartbeat = 10 * time.Second
)

// connect dials and opens an AMQP connection, for as long as ctx lasts. With amqps, the URL may name a CA and a client's
// certificate: cacertfile, certfile, keyfile, server_name_indication (RabbitMQ's "URI query parameters").
func connect(ctx context.Context, url, name string) (*amqp.Connection, *wire, error) {
	var w *wire
	stop := func() bool { return true }
	config := amqp.Config{
		Heartbeat:  heartbeat,
		Properties: amqp.Table{"product": "fallback", "connection_name": name},
		Dial: func(network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			w = newWire(conn, writeTimeout)
			stop = closeWith(ctx, w)
			return w, nil
		},
	}
	conn, err := amqp.DialConfig(url, config)
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		if w != nil {
			_ = w.Close()
		}
		return nil, nil, err
	}
	return conn, w, nil
}

// closeWith closes the socket when ctx ends, unless stopped before: the library's calls take no context, and end with
// their socket.
func closeWith(ctx context.Context, w *wire) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = w.Conn.Close() })
}

// closeConnection says good-bye to the broker, and does not insist. A broker under an alarm does not answer, and sends
// heartbeats, each of which moves the library's own deadline: so the socket is closed under it.
func closeConnection(conn *amqp.Connection, w *wire) {
	defer time.AfterFunc(closeTimeout, func() { _ = w.Conn.Close() }).Stop()
	_ = conn.CloseDeadline(time.Now().Add(closeTimeout)) // it is closed afterwards whatever this says
}

// errLost: the connection or channel went away before the outcome was known.
var errLost = errors.New("the connection was lost before the confirm")

// session is one connection with its confirm channels. It is used until the first doubt and then replaced.
type session struct {
	conn     *amqp.Connection
	wire     *wire
	channels []*channel
	next     atomic.Uint32
	opened   time.Time
	closes   chan *amqp.Error
	blocks   chan amqp.Blocking

	blocked atomic.Bool   // between connection.blocked and connection.unblocked
	late    atomic.Bool   // a confirm was late: when the block ends, the session does
	givenUp atomic.Bool   // retired because of a late confirm
	retired chan struct{} // closed when no new publish may use the session
	once    sync.Once
	watched chan struct{} // closed when watch has returned

	looking       singleflight.Group // one look at the queue at a time
	mayNotDeclare atomic.Bool        // so it is not tried again
	mu            sync.Mutex         // guards looked
	looked        look
}

// returnKey tells returns apart: the same message may be on its way twice, and to two queues.
type returnKey struct{ queue, id string }

// channel is an AMQP channel in confirm mode.
type channel struct {
	*amqp.Channel
	returns chan amqp.Return
	closes  chan *amqp.Error

	mu       sync.Mutex // guards the next two, and is held while the two above are emptied into them
	returned map[returnKey]int
	cause    *amqp.Error // why the broker closed the channel
}

// openSession connects and opens channels, each ready for inFlight publishes at once.
func openSession(ctx context.Context, url string, channels, inFlight int) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, w, err := connect(ctx, url, "fallback publisher")
	if err != nil {
		return nil, err
	}
	defer closeWith(ctx, w)()

	s := &session{
		conn: conn, wire: w, opened: time.Now(), retired: make(chan struct{}), watched: make(chan struct{}),
		closes: conn.NotifyClose(make(chan *amqp.Error, 1)), blocks: conn.NotifyBlocked(make(chan amqp.Blocking, 16)),
	}
	for range channels {
		ch, err := openChannel(conn, inFlight)
		if err != nil {
			closeConnection(conn, w)
			return nil, err
		}
		s.channels = append(s.channels, ch)
	}
	return s, nil
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
		closes:   ch.NotifyClose(make(chan *amqp.Error, 1)),
		returned: map[returnKey]int{},
	}, nil
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

// usable says whether a new publish may go this way. A broker sends something at least every half heartbeat: when two
// heartbeats have passed in silence, the connection is dead or the process was frozen for as long, and it is not tried.
func (s *session) usable() bool {
	select {
	case <-s.retired:
		return false
	default:
	}
	interval := s.conn.Config.Heartbeat
	return !s.conn.IsClosed() && (interval <= 0 || s.wire.silence() < 2*interval)
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
	s.wire.waiting.Add(1)
	defer s.wire.waiting.Add(-1)
	ch := s.channels[s.next.Add(1)%uint32(len(s.channels))]
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

// tooLate takes the session out of use: nobody waits for that confirm, nor for a return that may come with it, any
// more, and the buffer for returns has room for those only that somebody waits for. A blocked session is out of use
// anyway; it goes when the block ends.
func (s *session) tooLate() {
	s.late.Store(true)
	if !s.blocked.Load() {
		s.givenUp.Store(true)
		s.retire()
	}
}

// lost is the error of a publish on a channel that has been closed: errLost, or ErrNotAllowed when the broker has closed
// it because the user may not publish. The library tells why before it gives up the channel's confirms.
func (ch *channel) lost(err error) error {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	select {
	case cause, open := <-ch.closes:
		if open {
			ch.cause = cause
		}
	default:
	}
	switch {
	case ch.cause != nil && ch.cause.Code == amqp.AccessRefused:
		return fmt.Errorf("%w: %w", ErrNotAllowed, ch.cause)
	case ch.cause != nil:
		return fmt.Errorf("%w: %w", errLost, ch.cause)
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
