package rabbit

import (
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// MostReadyBytes bounds the bodies of messages that have come and that Next has not returned; one alone may be larger.
// The broker knows no such bound: it sends as many messages as may be unacked, whatever their size.
const MostReadyBytes = 24 << 20

// inbox is what a Source has been sent and not returned yet.
type inbox struct {
	more chan struct{} // holds a token when there may be something new for Next

	mu          sync.Mutex // guards the rest
	ready       []amqp.Delivery
	readyBytes  int             // of their bodies
	overflow    []amqp.Delivery // without their bodies, for which there was no room; they are requeued when there is
	lost        bool            // the connection or the consumer is gone, and nothing more will come
	cancelled   int             // the last consumer that we have cancelled
	consumer    string          // the present one; empty when there is none
	room        int             // how many more it may be sent
	lull        lull            // of the present one
	requeued    time.Time       // when the last message was
	settlements int             // since the last consumer was cancelled
}

// open is for a new consumer.
func (b *inbox) open(consumer string, prefetch int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.consumer, b.room = consumer, prefetch
	b.lull.begin(time.Now())
	b.signal() // Next may wait for a consumer
}

// close is for a consumer that we cancel, with its number.
func (b *inbox) close(tag int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cancelled, b.consumer, b.settlements = tag, "", 0
}

// softLimit is how many settlements of a quorum queue may be under way before its channel keeps further ones back.
const softLimit = 32

// keepsBack says whether the broker's channel may keep acks back.
func (b *inbox) keepsBack() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.settlements > softLimit
}

// ended notes that a consumer will be sent nothing more; unless we have cancelled it, the inbox is lost.
func (b *inbox) ended(tag int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cancelled < tag {
		b.lost = true
	}
	b.signal()
}

// clear forgets everything, with the connection.
func (b *inbox) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ready, b.readyBytes, b.overflow, b.lost, b.cancelled, b.consumer, b.settlements = nil, 0, nil, false, 0, "", 0
}

// arrived keeps a message, or adds it to the overflow.
func (b *inbox) arrived(d amqp.Delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.signal()
	b.lull.begin(time.Now())
	if d.ConsumerTag == b.consumer {
		b.room--
	}
	if len(b.ready) > 0 && b.readyBytes+len(d.Body) > MostReadyBytes {
		d.Body = nil
		b.overflow = append(b.overflow, d)
		return
	}
	b.ready = append(b.ready, d)
	b.readyBytes += len(d.Body)
}

// settlement is how a message was settled.
type settlement int

const (
	acked settlement = iota
	requeued
)

// settled makes room for another message, and may bring one back.
func (b *inbox) settled(d amqp.Delivery, how settlement) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settlements++
	if how == requeued {
		b.requeued = time.Now()
	}
	wakes := b.room <= 0 || b.lull.isLong() // else Next looks again soon
	if d.ConsumerTag == b.consumer {
		b.room++
	}
	if b.lull.begin(time.Now()); wakes {
		b.signal()
	}
}

// takeFirst takes out the first message that is ready. If there is none, ask is when to ask the broker what that means;
// zero if nothing can come before something is settled.
func (b *inbox) takeFirst() (d *amqp.Delivery, ask time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.lost:
		return nil, time.Time{}, fmt.Errorf("%w: the connection or the consumer was lost", ErrUnavailable)
	case len(b.ready) == 0 && (b.consumer == "" || b.room <= 0):
		return nil, time.Time{}, nil
	case len(b.ready) == 0:
		return nil, b.lull.next, nil
	}
	first := b.ready[0]
	b.ready[0] = amqp.Delivery{} // the slice would keep its body
	b.ready = b.ready[1:]
	b.readyBytes -= len(first.Body)
	return &first, time.Time{}, nil
}

// expect notes how long it has taken to begin: a message is under way for about half as long.
func (b *inbox) expect(took time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lull.pause = max(idle, took)
	b.lull.begin(time.Now())
}

// conclude is what follows from nothing having come. Without an error, since is the beginning of the lull that the
// broker is to be asked about; it is zero when it is not to be asked now, since bytes have come lately.
func (b *inbox) conclude(silence time.Duration) (since time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); silence < min(b.lull.pause, stillIdle) {
		b.lull.later(now)
		return time.Time{}, nil
	} else if err := b.lull.verdict(now); err != nil {
		return time.Time{}, err
	}
	return b.lull.since, nil
}

// heard notes an answer of the broker, unless the lull that it is about is over.
func (b *inbox) heard(since time.Time, ready int, asked time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lull.since.Equal(since) {
		b.lull.heard(ready, asked, time.Now())
	}
}

// requeueAll is requeueOverflow with all that is ready.
func (b *inbox) requeueAll() error {
	b.mu.Lock()
	b.overflow = append(b.ready, b.overflow...)
	b.ready, b.readyBytes = nil, 0
	b.mu.Unlock()
	return b.requeueOverflow()
}

// requeueOverflow is for when there is room, or no consumer: they may come again at once.
func (b *inbox) requeueOverflow() error {
	b.mu.Lock()
	overflow := b.overflow
	b.overflow = nil
	b.mu.Unlock()
	for _, d := range overflow {
		if err := d.Nack(false, true); err != nil {
			return err
		}
		b.settled(d, requeued)
	}
	return nil
}

// requeuedSince says whether one was since a time.
func (b *inbox) requeuedSince(t time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.requeued.After(t)
}

// signal wakes Next; the caller holds mu.
func (b *inbox) signal() {
	select {
	case b.more <- struct{}{}:
	default:
	}
}
