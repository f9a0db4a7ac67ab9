package rabbit

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// closeTimeout bounds the good-bye.
	closeTimeout = time.Second
	// longestAnswer bounds the wait for an answer of the broker that is behind the bodies of messages on a slow line,
	// longestSilence where nothing comes at all.
	longestAnswer, longestSilence = 5 * time.Minute, 3 * time.Second
)

// link is a connection to the broker. From the socket up: a [wire], TLS where the URL says so, [frames], and the
// client library. The library's calls take no context and end with their socket, so to bound one is to close the
// socket under it.
type link struct {
	conn    *amqp.Connection
	wire    *wire
	secured tls.ConnectionState // zero without TLS
}

// close says good-bye to the broker, and does not insist. A broker under an alarm does not answer, and sends
// heartbeats, each of which moves the library's own deadline: so the socket is closed under it.
func (l *link) close() {
	defer time.AfterFunc(closeTimeout, func() { _ = l.wire.Conn.Close() }).Stop()
	_ = l.conn.CloseDeadline(time.Now().Add(closeTimeout)) // it is closed afterwards whatever this says
}

// version is what the broker says that it is, for example "4.3.1"; empty if it says nothing.
func (l *link) version() string {
	version, _ := l.conn.Properties["version"].(string)
	return version
}

// ParseVersion reads the first two numbers of a version of RabbitMQ, of "4.3.1" for example.
func ParseVersion(version string) (major, minor int, ok bool) {
	n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor)
	return major, minor, n == 2
}

// endWith closes the socket when ctx ends, unless stopped before.
func (l *link) endWith(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = l.wire.Conn.Close() })
}

// within bounds calls until it is released: the socket is closed when ctx ends, or when the broker takes too long to
// answer. As long as something comes, the answer may be behind that.
func (l *link) within(ctx context.Context) (release func()) {
	ctx, cancel := context.WithTimeout(ctx, longestAnswer)
	stop, begin := l.endWith(ctx), time.Now()
	var watch sync.WaitGroup
	watch.Go(func() {
		for ctx.Err() == nil {
			left := longestSilence - min(time.Since(begin), l.wire.silence())
			if left <= 0 {
				cancel()
				return
			}
			sleep(ctx, left)
		}
	})
	return func() {
		stop()
		cancel()
		watch.Wait()
	}
}

// alive says whether the broker was heard lately. It sends something at least every half heartbeat: when two
// heartbeats have passed in silence, the connection is dead or the process was frozen for as long.
func (l *link) alive() bool {
	interval := l.conn.Config.Heartbeat
	return !l.conn.IsClosed() && (interval <= 0 || l.wire.silence() < 2*interval)
}

// ask puts a question on a channel of its own: the broker closes the channel of a question that it refuses. It may
// wait for as long as the connection lives, so its callers run it where they can leave it, or bound it.
func (l *link) ask(question func(*amqp.Channel) error) error {
	ch, err := l.conn.Channel()
	if err != nil {
		return err
	}
	err = question(ch)
	if !ch.IsClosed() {
		_ = ch.Close()
	}
	return err
}

// count asks for the messages that are ready on a queue, and its consumers.
func (l *link) count(queue string) (ready, consumers int, err error) {
	err = l.ask(func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		ready, consumers = q.Messages, q.Consumers
		return err
	})
	return ready, consumers, err
}

// closing is why the broker has closed a channel or a connection. It is for one goroutine at a time.
type closing struct {
	heard <-chan *amqp.Error // NotifyClose's, with room for one
	cause *amqp.Error
}

// why is nil while nothing is closed, or when we have closed it.
func (c *closing) why() *amqp.Error {
	select {
	case cause, open := <-c.heard:
		if open {
			c.cause = cause
		}
	default:
	}
	return c.cause
}
