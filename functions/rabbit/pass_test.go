package rabbit

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// stuck is a queue whose first messages the broker cannot hand over: it closes a connection for each try, a moment
// later, and till then whoever else begins to take has the next.
type stuck struct {
	mu     sync.Mutex
	bad    int // such messages that no connection has now
	good   int // behind them
	losses int
	takers map[*visit]int // how often each has begun to take
}

func (q *stuck) onConsume(v *visit, channel uint16) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.takers[v]++
	if q.bad > 0 {
		q.bad--
		q.losses++
		time.AfterFunc(10*time.Millisecond, func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.bad++
			v.closes(amqp.InternalError)
		})
		return
	}
	if q.good > 0 {
		q.good--
		v.send(deliverFrames(channel, q.takers[v], uint64(q.takers[v]), nil, []byte("body"), frameSize)...)
	}
}

// TestPass holds that what is behind messages that the broker cannot hand over is taken, each once and one with each
// connection, that it can be settled, and that it is told whether there were such messages.
func TestPass(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ bad, good int }{{1, 20}, {3, 5}, {6, 20}, {1, 0}, {0, 2}, {0, 0}} {
		t.Run(fmt.Sprint(row.bad, " before ", row.good), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := &stuck{bad: row.bad, good: row.good, takers: map[*visit]int{}}
				p := &peer{onConsume: q.onConsume}
				s := sourceOn(t, p)
				got := 0
				for calls := 1; ; calls++ {
					taken, err := s.Pass(t.Context())
					if want := map[bool]string{true: "hand-over",
						false: "stored"}[row.bad > 0]; name(err) != want {
						t.Fatalf("got %v, want %s", err, want)
					}
					for _, d := range taken {
						if err := d.Done(); err != nil {
							t.Error(err)
						}
					}
					if got += len(taken); got >= row.good && calls > 1 {
						break
					} else if calls > 20 {
						t.Fatalf("%d taken in %d calls, want %d", got, calls, row.good)
					}
				}
				synctest.Wait()
				if acked, nacked := p.settled(); got != row.good || len(acked) != row.good || len(nacked) != 0 ||
					q.losses > 12*max(row.good, 4) {
					t.Errorf("%d taken, %d acked, %d given back, %d connections lost", got, len(acked), len(nacked),
						q.losses)
				}
			})
		})
	}
}

// TestHandOver holds that the end of a connection by a fault of the broker is told from others.
func TestHandOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &peer{onConsume: func(v *visit, _ uint16) { v.closes(amqp.InternalError) }}
		s := sourceOn(t, p)
		for range 3 {
			err := s.Take(t.Context(), 1)
			if err == nil {
				_, err = s.Next(t.Context())
			}
			if name(err) != "hand-over" {
				t.Errorf("got %v", err)
			}
		}
	})
}
