package rabbit

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// mayDeclare lets the user declare the queue, which is there then.
func mayDeclare(v *visit, r request) bool {
	if !r.is(50, 10) {
		return false
	}
	name := r.arguments[2:]
	if name[1+name[0]]&1 == 0 {
		v.fill("q", 0)
	}
	return false
}

// once answers the first question about the queue in another way.
func once(react func(*visit, request)) func(*visit, request) bool {
	var first sync.Once
	return func(v *visit, r request) (done bool) {
		if r.is(50, 10) {
			first.Do(func() { done = true; react(v, r) })
		}
		return done
	}
}

// TestPublishLooksForQueue holds what a Publisher makes of a message that came back: it looks for the queue, and
// declares it, if it may; then the message is sent once more.
func TestPublishLooksForQueue(t *testing.T) {
	t.Parallel()
	const deadline = 4 * time.Second
	for _, row := range []struct {
		name     string
		ready    int // on the queue; -1: there is none
		script   []reaction
		onMethod func(*visit, request) bool
		want     string
		sent     int
		dials    int
		took     time.Duration // at most
	}{
		{"it is there", 0, []reaction{bounces}, nil, "stored", 2, 1, 0},
		{"it is there, and the message comes back again", 0, []reaction{bounces, bounces}, nil, "queue-missing", 2, 1,
			0},
		{"there is none", -1, []reaction{bounces}, nil, "queue-missing", 1, 1, 0},
		{"there is none, and the user may declare it", -1, []reaction{bounces}, mayDeclare, "stored", 2, 1, 0},
		{"the connection was lost before", -1, []reaction{hangs, bounces}, mayDeclare, "stored", 3, 2, time.Second},
		{"the connection was lost before, and there is none", -1, []reaction{hangs, bounces}, nil, "not-confirmed", 2,
			2, time.Second},
		{"the broker crashes over the question", -1, []reaction{bounces},
			once(func(v *visit, _ request) { v.closes(amqp.InternalError) }), "stored", 2, 2, time.Second},
		{"the user may not ask", -1, []reaction{bounces},
			once(func(v *visit, r request) { v.closeChannel(r.channel, amqp.AccessRefused) }), "stored", 2, 1, 0},
		{"no answer", -1, []reaction{bounces}, once(func(*visit, request) {}), "queue-missing", 1, 1, deadline},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &peer{onPublish: script(row.script...), onMethod: row.onMethod}
				p.fill("q", row.ready)
				publisher := publisherOn(t, p)
				ctx, cancel := context.WithTimeout(t.Context(), deadline)
				defer cancel()
				begin := time.Now()
				err := publisher.Publish(ctx, seal(captured()))
				if took := time.Since(begin); name(err) != row.want || took > row.took {
					t.Errorf("got %v after %s, want %s after %s at most", err, took, row.want, row.took)
				}
				if sent, dials := len(p.published()), p.dials(); sent != row.sent || dials != row.dials {
					t.Errorf("it was sent %d times over %d connections, want %d over %d", sent, dials, row.sent,
						row.dials)
				}
			})
		})
	}
}

// TestMissingQueueIsKnown holds that a queue which is missing costs a question a second, and not one for each message.
func TestMissingQueueIsKnown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		questions := 0
		p := &peer{onPublish: bounces, onMethod: func(_ *visit, r request) bool {
			if r.is(50, 10) {
				questions++
			}
			return false
		}}
		p.fill("q", -1)
		publisher := publisherOn(t, p)
		for range 40 {
			if err := publisher.Publish(t.Context(), seal(captured())); name(err) != "queue-missing" {
				t.Errorf("got %v", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if questions > 6 { // whether it is there, each second; and once to declare it
			t.Errorf("%d questions in 4 s", questions)
		}
	})
}

// TestReady holds what a Publisher says of itself by what the broker answers.
func TestReady(t *testing.T) {
	t.Parallel()
	const patience = 4 * time.Second
	declares := func(answer func(*visit, request)) func(*visit, request) bool {
		return func(v *visit, r request) bool {
			name := r.arguments
			if !r.is(50, 10) || name[3+name[2]]&1 != 0 {
				return false
			}
			answer(v, r)
			return true
		}
	}
	for _, row := range []struct {
		name     string
		ready    int
		onMethod func(*visit, request) bool
		want     string
	}{
		{"it is there", 3, declares(func(v *visit, r request) { v.closeChannel(r.channel, amqp.AccessRefused) }),
			"stored"},
		{"there is none", -1, nil, "queue-missing"},
		{"there was none", -1, mayDeclare, "stored"},
		{"it is of another type", 0, declares(func(v *visit, r request) {
			v.send(method(r.channel, 20, 40, u16(amqp.PreconditionFailed), short("inequivalent arg 'x-queue-type'"),
				u16(0), u16(0)))
		}), "queue-not-quorum"},
		{"it has other arguments", 0, declares(func(v *visit,
			r request) {
			v.closeChannel(r.channel, amqp.PreconditionFailed)
		}), "stored"},
		{"no answer", 0, once(func(*visit, request) {}), "broker-unavailable"},
		{"the connection is lost", 0, once(func(v *visit, _ request) { v.hangUp() }), "broker-unavailable"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &peer{onMethod: row.onMethod}
				p.fill("q", row.ready)
				publisher := publisherOn(t, p)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				if err := publisher.Ready(ctx); name(err) != row.want {
					t.Errorf("got %v, want %s", err, row.want)
				}
			})
		})
	}
}
