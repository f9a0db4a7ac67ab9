package rabbit

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// sends delivers messages with these header tables when a consumer is there.
func sends(tables ...[]byte) func(*visit, uint16) {
	return func(v *visit, channel uint16) {
		for i, table := range tables {
			v.deliver(channel, uint64(i+1), table, []byte("body"))
		}
	}
}

// take begins to take from a peer.
func take(t *testing.T, s *Source, prefetch int) {
	t.Helper()
	if err := s.Take(t.Context(), prefetch); err != nil {
		t.Fatal(err)
	}
}

func next(t *testing.T, s *Source) *Delivery {
	t.Helper()
	d, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestSourceReadsAnyHeaders holds that no bytes of a header table end a connection, and that a message with such that
// cannot be read is marked, and otherwise as it was sent.
func TestSourceReadsAnyHeaders(t *testing.T) {
	t.Parallel()
	tables := [][]byte{nil, nested(40), field("a", 'I', u32(7)), array(9000),
		field("n", 'S', long(make([]byte, 1<<18))), {1, 2, 3}, nil}
	for _, piece := range []int{0, 1, 1000} {
		synctest.Test(t, func(t *testing.T) {
			p := &peer{onConsume: sends(tables...), greets: func(v *visit) bool { v.piece = piece; return true }}
			s := sourceOn(t, p)
			take(t, s, 10)
			for i := range tables {
				d := next(t, s)
				_, err := d.Request()
				if bad := i == 1 || i == 3 || i == 4 || i == 5; (err != nil) != bad || bad &&
					!strings.Contains(err.Error(), "id-1") {
					t.Errorf("message %d: got %v", i+1, err)
				}
				m := d.message
				if m.MessageId != "id-1" || m.Type != "type" || m.ContentType != "text/plain" ||
					m.CorrelationId != "correlation" || string(m.Body) != "body" || m.Priority != 7 {
					t.Errorf("message %d came as %+v", i+1, m)
				}
				if err := d.Done(); err != nil {
					t.Error(err)
				}
			}
			synctest.Wait()
			if acked, _ := p.settled(); !slices.Equal(acked, []uint64{1, 2, 3, 4, 5, 6, 7}) || p.dials() != 1 {
				t.Errorf("acked %d, over %d connections", acked, p.dials())
			}
		})
	}
}

// TestMoveKeepsMark holds that the copy of a message which could not be read has the mark, and the bytes of its
// headers.
func TestMoveKeepsMark(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &peer{onConsume: sends(nested(40))}
		s := sourceOn(t, p)
		take(t, s, 1)
		if err := next(t, s).Move(t.Context(), "parked", map[string]any{"fallback-attempt": int64(0)}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		sent := p.published()
		acked, _ := p.settled()
		if len(sent) != 1 || sent[0].queue != "parked" || sent[0].id != "id-1" || len(acked) != 1 {
			t.Fatalf("got %+v, acked %d", sent, acked)
		}
		if h := sent[0].header; !bytes.Contains(h, field(HeaderUnread, 'x', long(nested(40)))) ||
			!bytes.Contains(h, []byte(tooDeep)) {
			t.Errorf("it was moved with %q", h)
		}
	})
}

// TestLargestMarkIsMoved holds that headers which were kept as bytes fit into a frame with those that a move adds.
func TestLargestMarkIsMoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		for size := 118 << 10; size < 121<<10; size += 100 {
			p.onConsume = sends(append(nested(40), field("n", 'S', long(make([]byte, size)))...))
			s := sourceOn(t, p)
			take(t, s, 1)
			if err := next(t, s).Move(t.Context(), "parked",
				map[string]any{"fallback-reason": strings.Repeat("r", 1000),
					"fallback-attempt": int64(1)}); err != nil {
				t.Fatal(err)
			}
			s.Close()
		}
		kept := 0
		for _, m := range p.published() {
			if len(m.header) > frameSize-aroundPayload {
				t.Fatalf("it was moved with a frame of %d bytes", len(m.header)+aroundPayload)
			}
			if bytes.Contains(m.header, []byte(HeaderUnread+"x")) {
				kept++
			}
		}
		if kept == 0 || kept == len(p.published()) {
			t.Errorf("%d of %d kept their headers, want some", kept, len(p.published()))
		}
	})
}

// TestSourceLost holds what each call says when the connection is gone, or the consumer: to take again helps, and what
// was unacked is neither settled nor moved.
func TestSourceLost(t *testing.T) {
	t.Parallel()
	for what, lose := range map[string]func(*visit){
		"the connection":                (*visit).hangUp,
		"the connection, by the broker": func(v *visit) { v.closes(amqp.ConnectionForced) },
		"the channel":                   func(v *visit) { v.closeChannel(1, amqp.InternalError) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &peer{onConsume: sends(nil, nil)}
				s := sourceOn(t, p)
				take(t, s, 3)
				first, second := next(t, s), next(t, s)
				lose(p.first())
				if _, err := s.Next(t.Context()); name(err) != "broker-unavailable" {
					t.Errorf("next: got %v", err)
				}
				if err := first.Done(); name(err) != "ack-lost" {
					t.Errorf("done: got %v", err)
				}
				if err := first.Requeue(); name(err) != "ack-lost" {
					t.Errorf("return: got %v", err)
				}
				if err := second.Move(t.Context(), "parked", nil); name(err) != "ack-lost" || len(p.published()) != 0 {
					t.Errorf("move: got %v, %d were published", err, len(p.published()))
				}
				take(t, s, 3)
				if err := next(t, s).Done(); err != nil {
					t.Errorf("taken again: %v", err)
				}
			})
		})
	}
	t.Run("the consumer", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			p := &peer{onConsume: sends(nil)}
			s := sourceOn(t, p)
			take(t, s, 3)
			d := next(t, s)
			p.first().cancels(1)
			if _, err := s.Next(t.Context()); name(err) != "broker-unavailable" {
				t.Errorf("next: got %v", err)
			}
			if err := d.Done(); err != nil { // the channel is there
				t.Errorf("done: got %v", err)
			}
		})
	})
}

// TestLostBetweenMoveAndAck holds that a message which is stored elsewhere, and not taken off its queue, is told as
// that.
func TestLostBetweenMoveAndAck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &peer{onConsume: sends(nil)}
		p.onPublish = func(v *visit, m published) {
			p.first().hangUp()
			time.AfterFunc(time.Second, func() { v.ack(m) })
		}
		s := sourceOn(t, p)
		take(t, s, 1)
		err := next(t, s).Move(t.Context(), "parked", nil)
		if !errors.Is(err, ErrLostAck) || !errors.Is(err, ErrCopied) || len(p.published()) != 1 {
			t.Errorf("got %v, %d were published", err, len(p.published()))
		}
	})
}

// TestMoveDoesNotAck holds that a message stays where it is when no other queue has it.
func TestMoveDoesNotAck(t *testing.T) {
	t.Parallel()
	for want, react := range map[string]reaction{"queue-missing": bounces, "queue-full": nacks,
		"not-confirmed": silence, "not-allowed": closesChannel(amqp.AccessRefused)} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &peer{onConsume: sends(nil), onPublish: react}
				s := sourceOn(t, p)
				take(t, s, 1)
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				d := next(t, s)
				if err := d.Move(ctx, "parked", nil); name(err) != want {
					t.Errorf("got %v, want %s", err, want)
				}
				synctest.Wait()
				if acked, _ := p.settled(); len(acked) != 0 {
					t.Errorf("it was acked")
				}
				if err := d.Requeue(); err != nil {
					t.Errorf("requeued: %v", err)
				}
			})
		})
	}
}

// TestLeftCountsTheRequeued holds that a message which the broker counts again only some time after it was requeued is
// not taken for gone, and that an empty queue is not asked for long.
func TestLeftCountsTheRequeued(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &peer{onConsume: sends(nil)}
		s := sourceOn(t, p)
		if left, err := s.Left(t.Context(), math.MaxInt); left != 0 || err != nil {
			t.Errorf("an empty queue: got %d %v", left, err)
		}
		begin := time.Now()
		if left, err := s.Left(t.Context(), math.MaxInt); left != 0 || err != nil ||
			time.Since(begin) > 100*time.Millisecond {
			t.Errorf("an empty queue: got %d %v after %s", left, err, time.Since(begin))
		}
		take(t, s, 1)
		d := next(t, s)
		if err := s.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := d.Requeue(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(500*time.Millisecond, func() { p.fill("q", 1) })
		if left, err := s.Left(t.Context(), math.MaxInt); left != 1 || err != nil {
			t.Errorf("one was requeued: got %d %v", left, err)
		}
	})
}

// TestStop holds that what has come and was not returned goes back, and that what was returned can still be settled.
func TestStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &peer{onConsume: sends(nil, nil, nil)}
		s := sourceOn(t, p)
		take(t, s, 3)
		d := next(t, s)
		synctest.Wait()
		if err := s.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := d.Done(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if acked, nacked := p.settled(); !slices.Equal(acked, []uint64{1}) || !slices.Equal(nacked, []uint64{2, 3}) {
			t.Errorf("acked %d, requeued %d", acked, nacked)
		}
	})
}

// TestAnswersAreBounded holds that a broker which is silent is left after three seconds, and one that sends all the
// time is not.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		sends time.Duration
		want  string
		took  time.Duration
	}{{"silent", 0, "broker-unavailable", longestSilence}, {"busy for a minute", time.Minute, "stored", time.Minute},
		{"busy for ever", time.Hour, "broker-unavailable", longestAnswer}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &peer{onMethod: once(func(v *visit, r request) {
					if row.sends > 0 {
						go func() {
							v.keepsBusy(row.sends)
							v.declare(r)
						}()
					}
				})}
				p.fill("q", 7)
				s := sourceOn(t, p)
				begin := time.Now()
				waiting, err := s.Waiting(t.Context())
				if took := time.Since(begin); name(err) != row.want || took > row.took+time.Second || err == nil &&
					waiting != 7 {
					t.Errorf("got %d, %v after %s, want %s after %s", waiting, err, took, row.want, row.took)
				}
			})
		})
	}
}
