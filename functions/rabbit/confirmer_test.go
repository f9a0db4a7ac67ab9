package rabbit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// reaction is what a scripted broker does with a message.
type reaction func(*visit, published)

func acks(v *visit, m published)  { v.ack(m) }
func nacks(v *visit, m published) { v.nack(m) }
func silence(*visit, published)   {}
func hangs(v *visit, _ published) { v.hangUp() }
func bounces(v *visit, m published) {
	v.returns(m)
	v.ack(m)
}
func closesChannel(code uint16) reaction {
	return func(v *visit, m published) { v.closeChannel(m.channel, code) }
}
func closesConnection(code uint16) reaction { return func(v *visit, m published) { v.closes(code) } }

// after is a reaction that comes later.
func after(d time.Duration, react reaction) reaction {
	return func(v *visit, m published) { time.AfterFunc(d, func() { react(v, m) }) }
}

// both are two reactions, one after the other.
func both(first, second reaction) reaction {
	return func(v *visit, m published) {
		first(v, m)
		second(v, m)
	}
}

func blocks(v *visit, _ published) { v.block("low on memory") }

// script reacts to the first message with the first reaction, to the second with the second, and acks what comes then.
func script(reactions ...reaction) func(*visit, published) {
	var mu sync.Mutex
	return func(v *visit, m published) {
		mu.Lock()
		react := acks
		if len(reactions) > 0 {
			react, reactions = reactions[0], reactions[1:]
		}
		mu.Unlock()
		react(v, m)
	}
}

// TestStore holds what becomes of a message by what the broker does with it: how often it is sent, over how many
// connections, what is answered, and when.
func TestStore(t *testing.T) {
	t.Parallel()
	const deadline = 4 * time.Second
	for _, row := range []struct {
		name   string
		script []reaction
		want   string
		sent   int
		dials  int
		took   time.Duration // at most
	}{
		{"acked", []reaction{acks}, "stored", 1, 1, 0},
		{"acked with all before it", []reaction{func(v *visit, m published) { v.ackAll(m) }}, "stored", 1, 1, 0},
		{"acked late, and in time", []reaction{after(deadline-time.Millisecond, acks)}, "stored", 1, 1, deadline},
		{"acked twice", []reaction{both(acks, acks)}, "stored", 1, 1, 0},
		{"returned", []reaction{bounces}, "queue-missing", 1, 1, 0},
		{"returned, and nothing more", []reaction{func(v *visit, m published) { v.returns(m) }}, "not-confirmed", 1, 1,
			deadline},
		{"nacked once", []reaction{nacks}, "stored", 2, 1, 10 * time.Millisecond},
		{"nacked three times", []reaction{nacks, nacks, nacks}, "stored", 4, 1, 260 * time.Millisecond},
		{"nacked each time", []reaction{nacks, nacks, nacks, nacks}, "queue-full", 4, 1, 260 * time.Millisecond},
		{"nacked, then returned", []reaction{nacks, bounces}, "queue-missing", 2, 1, 10 * time.Millisecond},
		{"no answer", []reaction{silence}, "not-confirmed", 1, 1, deadline},
		{"a heartbeat and no answer", []reaction{func(v *visit, _ published) { v.send(heartbeatFrame()) }},
			"not-confirmed", 1, 1, deadline},
		{"the connection is lost", []reaction{hangs}, "stored", 2, 2, time.Second},
		{"the connection is lost twice", []reaction{hangs, hangs}, "not-confirmed", 2, 2, time.Second},
		{"lost, then nacked", []reaction{hangs, nacks, nacks, nacks, nacks}, "not-confirmed", 5, 2, time.Second},
		{"lost, then returned", []reaction{hangs, bounces}, "not-confirmed", 2, 2, time.Second},
		{"lost, then not allowed", []reaction{hangs, closesChannel(amqp.AccessRefused)}, "not-confirmed", 2, 2,
			time.Second},
		{"nacked, then lost", []reaction{nacks, hangs}, "stored", 3, 2, time.Second},
		{"acked, and lost at once", []reaction{both(acks, hangs)}, "stored", 1, 1, 0},
		{"returned, and lost before the ack", []reaction{both(func(v *visit, m published) { v.returns(m) }, hangs)},
			"stored", 2, 2, time.Second},
		{"the channel is closed: 404", []reaction{closesChannel(amqp.NotFound)}, "stored", 2, 2, time.Second},
		{"the channel is closed: 406", []reaction{closesChannel(amqp.PreconditionFailed)}, "stored", 2, 2, time.Second},
		{"the channel is closed: 541", []reaction{closesChannel(amqp.InternalError)}, "stored", 2, 2, time.Second},
		{"the channel is closed: 403", []reaction{closesChannel(amqp.AccessRefused)}, "not-allowed", 1, 1, 0},
		{"the connection is closed: 541", []reaction{closesConnection(amqp.InternalError)}, "stored", 2, 2,
			time.Second},
		{"the connection is closed: 320", []reaction{closesConnection(amqp.ConnectionForced)}, "stored", 2, 2,
			time.Second},
		{"an alarm before the ack", []reaction{both(blocks, after(time.Second, acks))}, "stored", 1, 1, time.Second},
		{"an alarm and no ack", []reaction{blocks}, "not-confirmed", 1, 1, deadline},
		{"a frame that is none", []reaction{func(v *visit, _ published) {
			v.send([]byte("HTTP/1.1 400 Bad " +
				"Request\r\n\r\n"))
		}}, "stored", 2, 2, time.Second},
		{"a confirm of another", []reaction{func(v *visit, m published) { v.send(ackFrame(m.channel, m.tag+7, false)) }}, "not-confirmed", 1, 1, deadline},
		{"a return of another", []reaction{func(v *visit, m published) {
			other := m
			other.queue = "other"
			v.returns(other)
			v.ack(m)
		}}, "stored", 1, 1, 0},
	} {
		for _, piece := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s/piece=%d", row.name, piece), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					p := &peer{onPublish: script(row.script...),
						greets: func(v *visit) bool { v.piece = piece; return true }}
					c := confirmerOn(t, p)
					ctx, cancel := context.WithTimeout(t.Context(), deadline)
					defer cancel()
					begin := time.Now()
					err := c.store(ctx, "q", amqp.Publishing{MessageId: "id", Body: []byte("body")})
					took := time.Since(begin)
					if name(err) != row.want || took > row.took {
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
}

// TestConfirmsOutOfOrder holds that each of many that are in flight gets its own answer, in whatever order the
// confirms come, and however many at a time.
func TestConfirmsOutOfOrder(t *testing.T) {
	t.Parallel()
	const n = 60
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			var waiting []published
			p := &peer{}
			p.onPublish = func(v *visit, m published) {
				if waiting = append(waiting, m); len(waiting) < n {
					return
				}
				if seed == 0 { // all with one
					for _, m := range waiting {
						if strings.HasPrefix(m.id, "return") {
							v.returns(m)
						}
					}
					v.ackAll(waiting[n-1])
					return
				}
				for _, i := range random.Perm(n) {
					if m := waiting[i]; strings.HasPrefix(m.id, "return") {
						bounces(v, m)
					} else {
						acks(v, m)
					}
				}
			}
			c := confirmerOn(t, p)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var work sync.WaitGroup
			for i := range n {
				id, want := fmt.Sprint("ack ", i), "stored"
				if i%3 == 0 {
					id, want = fmt.Sprint("return ", i/6), "queue-missing" // and some ids twice
				}
				work.Go(func() {
					if err := c.store(ctx, "q", amqp.Publishing{MessageId: id}); name(err) != want {
						t.Errorf("%s: got %v, want %s", id, err, want)
					}
				})
			}
			work.Wait()
		})
	}
}

// TestFullQueueIsKnown holds that the next message for a queue that is full is not sent four times, and that another
// queue is another matter.
func TestFullQueueIsKnown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var room atomic.Bool
		p := &peer{onPublish: func(v *visit, m published) {
			if m.queue == "q" && !room.Load() {
				v.nack(m)
				return
			}
			v.ack(m)
		}}
		c := confirmerOn(t, p)
		for i, want := range []int{4, 5, 6} {
			if err := c.store(t.Context(), "q", amqp.Publishing{}); name(err) != "queue-full" ||
				len(p.published()) != want {
				t.Errorf("message %d: got %v, %d were sent, want %d", i, err, len(p.published()), want)
			}
		}
		if err := c.store(t.Context(), "other", amqp.Publishing{}); err != nil {
			t.Errorf("another queue: %v", err)
		}
		room.Store(true)
		for range 2 {
			if err := c.store(t.Context(), "q", amqp.Publishing{}); err != nil {
				t.Errorf("when there is room: %v", err)
			}
		}
	})
}

// TestAfterRefusal holds that a user who may not publish costs a connection a second at most.
func TestAfterRefusal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &peer{onPublish: closesChannel(amqp.AccessRefused)}
		c := confirmerOn(t, p)
		for range 50 {
			if err := c.store(t.Context(), "q", amqp.Publishing{}); name(err) != "not-allowed" {
				t.Errorf("got %v", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := p.dials(); n > 5 {
			t.Errorf("%d connections in 5 s", n)
		}
	})
}

// TestAfterAlarm holds that nothing is sent while the broker takes nothing, that the answer is there at once, and that
// messages are stored again after it; and that a connection on which a confirm was late is replaced then.
func TestAfterAlarm(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		first reaction
		want  string
		dials int
	}{{"none was late", both(blocks, after(time.Millisecond, acks)), "stored", 1},
		{"one was late", blocks, "not-confirmed", 2}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &peer{onPublish: script(row.first)}
				c := confirmerOn(t, p)
				store := func(want string) {
					t.Helper()
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					if err := c.store(ctx, "q", amqp.Publishing{}); name(err) != want {
						t.Errorf("got %v, want %s", err, want)
					}
				}
				store(row.want)
				for range 20 {
					begin := time.Now()
					if store("broker-blocked"); time.Since(begin) > 0 {
						t.Errorf("that it is blocked was said after %s", time.Since(begin))
					}
					p.first().send(heartbeatFrame())
					time.Sleep(time.Second)
				}
				p.first().unblock()
				synctest.Wait()
				store("stored")
				if n := p.dials(); n != row.dials || len(p.published()) != 2 {
					t.Errorf("%d were sent over %d connections, want 2 over %d", len(p.published()), n, row.dials)
				}
			})
		})
	}
}

// TestLateConfirm holds that a message whose confirm is late does not hold up the next, which goes over another
// connection, and that those in flight on the first go on there.
func TestLateConfirm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &peer{onPublish: script(silence, after(3*time.Second, acks))}
		c := confirmerOn(t, p)
		long, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var work sync.WaitGroup
		work.Go(func() {
			if err := c.store(short, "q", amqp.Publishing{MessageId: "late"}); name(err) != "not-confirmed" {
				t.Errorf("the late one: got %v", err)
			}
		})
		synctest.Wait()
		work.Go(func() {
			if err := c.store(long, "q", amqp.Publishing{MessageId: "beside"}); err != nil {
				t.Errorf("the one beside it: got %v", err)
			}
		})
		time.Sleep(1500 * time.Millisecond)
		if err := c.store(long, "q", amqp.Publishing{MessageId: "next"}); err != nil || p.dials() != 2 {
			t.Errorf("the next: got %v, over %d connections", err, p.dials())
		}
		work.Wait()
		if n := len(p.published()); n != 3 {
			t.Errorf("%d were sent, want 3", n)
		}
	})
}

// TestNoGreeting holds that a broker which takes connections and says nothing costs a publish the dial's time, or its
// own.
func TestNoGreeting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &peer{greets: func(*visit) bool { return false }}
		c := confirmerOn(t, p)
		for _, patience := range []time.Duration{time.Second, 10 * time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			begin := time.Now()
			if err := c.store(ctx, "q", amqp.Publishing{}); name(err) != "broker-unavailable" ||
				time.Since(begin) > min(patience, dialTimeout) {
				t.Errorf("got %v after %s", err, time.Since(begin))
			}
			cancel()
		}
	})
}
