package rabbit

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// questions counts those about the queue, which are answered beside whatever else is sent.
func questions(n *int) func(*visit, request) bool {
	return func(v *visit, r request) bool {
		if !r.is(50, 10) {
			return false
		}
		*n++
		go v.declare(r)
		return true
	}
}

// nothing is what Next says when no message comes, and after how long.
func nothing(t *testing.T, s *Source, patience time.Duration) (what string, took time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	begin := time.Now()
	d, err := s.Next(ctx)
	switch took = time.Since(begin); {
	case d != nil:
		t.Fatal("a message came")
	case errors.Is(err, context.DeadlineExceeded):
		return "nothing", took
	}
	return name(err), took
}

// TestDry holds that a queue counts as read to its end when the broker has said twice that nothing is ready, and how
// soon; that it is said again, not as often; and soon again when something was settled, which may have come back.
func TestDry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		p := &peer{onConsume: sends(nil), onMethod: questions(&asked)}
		s := sourceOn(t, p)
		take(t, s, 5)
		d := next(t, s)
		expect := func(longest time.Duration, questions int) {
			t.Helper()
			asked = 0
			if what, took := nothing(t, s, time.Minute); what != "queue-dry" || took > longest || asked != questions {
				t.Errorf("got %s after %s and %d questions, want it after %s and %d", what, took, asked, longest,
					questions)
			}
		}
		expect(3*idle, 2)
		expect(idleAgain+idle, 1)
		expect(idleAgain+idle, 1)
		if err := d.Requeue(); err != nil {
			t.Fatal(err)
		}
		expect(3*idle, 2)
		if err := s.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		asked = 0
		if what, _ := nothing(t, s, time.Minute); what != "nothing" || asked != 0 {
			t.Errorf("without a consumer: got %s, asked %d times", what, asked)
		}
	})
}

// TestStuck holds that what is ready and does not come is not waited for without end, but as long as nothing can come:
// when as many are unacked as may be.
func TestStuck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		p := &peer{onConsume: sends(nil), onMethod: questions(&asked)}
		p.fill("q", 3)
		s := sourceOn(t, p)
		take(t, s, 1)
		d := next(t, s)
		go p.first().keepsBusy(time.Hour)
		if what, _ := nothing(t, s, time.Minute); what != "nothing" || asked != 0 {
			t.Errorf("with one unacked of one: got %s, asked %d times", what, asked)
		}
		begin := time.Now()
		time.AfterFunc(time.Second, func() { _ = d.Done() })
		for range 2 { // and it is said again
			if what, took := nothing(t, s, time.Minute); what != "queue-stuck" || took < stuckAfter ||
				took > stuckAfter+2*time.Second {
				t.Errorf("got %s after %s", what, took)
			}
		}
		if most := int(time.Since(begin)/stillIdle) + 2; asked > most {
			t.Errorf("asked %d times, want %d at most", asked, most)
		}
		p.fill("q", 0)
		if what, _ := nothing(t, s, time.Minute); what != "queue-dry" {
			t.Errorf("when another has taken them: got %s", what)
		}
	})
}

// TestTakeBesideNext holds that who waits hears of a new consumer, too, however often it is changed meanwhile.
func TestTakeBesideNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &peer{onMethod: func(v *visit, r request) bool {
			if r.is(60, 10) {
				v.sleep(time.Millisecond) // Next sees that there is no consumer
			}
			return false
		}}
		s := sourceOn(t, p)
		take(t, s, 1)
		for prefetch := range 5 {
			said := make(chan string)
			go func() {
				what, _ := nothing(t, s, time.Minute)
				said <- what
			}()
			synctest.Wait()
			take(t, s, prefetch+2)
			if what := <-said; what != "queue-dry" {
				t.Errorf("taken anew, %d at a time: got %s", prefetch+2, what)
			}
		}
	})
}

// TestNoConsumer holds that who could not begin to take waits for nothing, and does not spin.
func TestNoConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &peer{onMethod: func(v *visit, r request) bool {
			if r.is(60, 20) {
				v.closeChannel(r.channel, amqp.NotFound)
			}
			return r.is(60, 20)
		}}
		s := sourceOn(t, p)
		if err := s.Take(t.Context(), 1); name(err) != "queue-missing" {
			t.Errorf("got %v", err)
		}
		if what, _ := nothing(t, s, time.Minute); what != "nothing" {
			t.Errorf("got %s", what)
		}
	})
}

// TestUnderWay holds that what is neither ready on the queue nor here is waited for: a large message on a slow line,
// or what the broker was about to send when it was asked.
func TestUnderWay(t *testing.T) {
	t.Parallel()
	const messages = 5
	slowly := func(wait time.Duration) func(*visit, [][]byte) {
		return func(v *visit, frames [][]byte) { v.trickle(wait, frames...) }
	}
	later := func(wait time.Duration) func(*visit, [][]byte) {
		return func(v *visit, frames [][]byte) { time.AfterFunc(wait, func() { v.send(frames...) }) }
	}
	for _, row := range []struct {
		name  string
		body  int
		ready int // more, by the answers
		send  func(*visit, [][]byte)
		end   string
	}{
		{"on a slow line", 5000, 0, slowly(10 * time.Millisecond), "queue-dry"},
		{"on a slow line, and more are ready", 5000, 3, slowly(10 * time.Millisecond), "queue-stuck"},
		{"on a very slow line", 200, 0, slowly(80 * time.Millisecond), "queue-dry"},
		{"about to be sent", 1, 0, later(2*idle - time.Millisecond), "queue-dry"},
		{"about to be sent, after two answers", 1, 0, later(3*idle - time.Millisecond), "queue-dry"},
		{"the answer is behind it", 1, 0, func(v *visit, frames [][]byte) {
			v.trickle(time.Second, frames[0][:1])
			v.send(append([][]byte{frames[0][1:]}, frames[1:]...)...)
		}, "queue-dry"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				asked, sent := 0, uint64(0)
				p := &peer{}
				send := func(v *visit, channel uint16) {
					if sent == messages {
						return
					}
					sent++
					row.send(v, deliverFrames(channel, 1, sent, nil, make([]byte, row.body), 100))
				}
				p.onConsume = send
				count := questions(&asked)
				p.onMethod = func(v *visit, r request) bool {
					if r.is(60, 80) {
						send(v, r.channel)
					}
					return count(v, r)
				}
				p.fill("q", row.ready)
				s := sourceOn(t, p)
				take(t, s, 1)
				go p.first().keepsBusy(time.Hour)
				for i := range messages {
					d := next(t, s)
					if d.Size() != row.body {
						t.Errorf("message %d has %d bytes", i, d.Size())
					}
					if err := d.Done(); err != nil {
						t.Fatal(err)
					}
				}
				if what, _ := nothing(t, s, time.Minute); what != row.end || p.dials() != 1 {
					t.Errorf("in the end: %s, over %d connections", what, p.dials())
				}
			})
		})
	}
}

// TestFarAway holds that a broker which is far away is not asked what is left while its deliveries are under way.
func TestFarAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const trip, messages = 100 * time.Millisecond, 10
		asked, sent := 0, uint64(0)
		p := &peer{}
		send := func(v *visit, channel uint16) {
			if sent == messages {
				return
			}
			sent++
			tag := sent
			time.AfterFunc(trip, func() { v.deliver(channel, tag, nil, []byte("body")) })
		}
		p.onConsume = send
		count := questions(&asked)
		p.onMethod = func(v *visit, r request) bool {
			switch {
			case r.is(60, 10), r.is(60, 20):
				time.Sleep(trip)
			case r.is(60, 80):
				send(v, r.channel)
			}
			return count(v, r)
		}
		s := sourceOn(t, p)
		take(t, s, 1)
		for range messages {
			if err := next(t, s).Done(); err != nil {
				t.Fatal(err)
			}
		}
		if asked != 0 {
			t.Errorf("asked %d times while messages were under way", asked)
		}
		if what, _ := nothing(t, s, time.Minute); what != "queue-dry" || asked != 2 {
			t.Errorf("got %s, asked %d times, want 2", what, asked)
		}
	})
}

// TestAskingDoesNotEndTheConnection holds that who stops waiting while the broker is asked does not lose what is
// unacked.
func TestAskingDoesNotEndTheConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &peer{onConsume: sends(nil), onMethod: func(v *visit, r request) bool {
			if r.is(50, 10) {
				time.AfterFunc(2*time.Second, func() { v.declare(r) })
				return true
			}
			return false
		}}
		s := sourceOn(t, p)
		take(t, s, 2)
		d := next(t, s)
		if what, took := nothing(t, s, time.Second); what != "nothing" || took > 3*time.Second {
			t.Errorf("got %s after %s", what, took)
		}
		if err := d.Done(); err != nil || p.dials() != 1 {
			t.Errorf("got %v, over %d connections", err, p.dials())
		}
		synctest.Wait()
		if acked, _ := p.settled(); len(acked) != 1 {
			t.Errorf("acked %d", acked)
		}
	})
}
