package drain

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/target"
)

// TestReady holds that readiness is of now, and not of the last run, nor of when a wait began; that it asks the queue
// once a second at most, and neither beside a run that sends nor after the end; and that it keeps nobody waiting.
func TestReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, p := &away{memory: newMemory(0)}, &primary{}
		d := New(options(), q, p)
		expect := func(when string, ready bool) {
			t.Helper()
			time.Sleep(lookEvery)
			begin, asked := time.Now(), q.asked.Load()
			for range 3 {
				if err := d.Ready(); (err == nil) != ready {
					t.Errorf("%s: got %v", when, err)
				}
			}
			if n := q.asked.Load() - asked; n > 1 || time.Since(begin) > 0 {
				t.Errorf("%s: asked %d times in %s", when, n, time.Since(begin))
			}
		}
		expect("before the first run", true)
		q.gone.Store(true)
		expect("gone before the first run", false)
		q.gone.Store(false)
		d.Once(context.Background(), Budget{})
		expect("after a run", true)
		q.gone.Store(true)
		expect("gone since the last run", false)
		q.gone.Store(false)
		expect("back since the last run", true)

		q.ready = newMemory(1).ready
		q.ready[0].queue = q.memory
		p.takes = time.Minute
		p.send = func(string, int) target.Verdict {
			if len(p.got) > 1 {
				return done
			}
			return target.Verdict{Action: target.Pause, Unreachable: true, Reason: "refused"}
		}
		begin := time.Now()
		p.probe = func() bool { return len(p.got) == 0 || time.Since(begin) > time.Hour }
		ended := make(chan Report)
		go func() { ended <- d.Once(context.Background(), Budget{}) }()
		time.Sleep(10 * time.Second)
		q.gone.Store(true)
		asked := q.asked.Load()
		expect("while one is sent", true)
		if n := q.asked.Load() - asked; n != 0 {
			t.Errorf("asked %d times beside a run that sends", n)
		}
		time.Sleep(10 * time.Minute)
		expect("gone in a long wait", false)
		q.gone.Store(false)
		time.Sleep(longestWait)
		expect("back in a long wait", true)
		if r := <-ended; r.Pauses != 1 {
			t.Errorf("got %+v", r)
		}

		d.Close()
		asked = q.asked.Load()
		expect("after the end", true)
		if n := q.asked.Load() - asked; n != 0 {
			t.Errorf("asked %d times after the end", n)
		}
	})
}

// away is a queue that is not there for a while.
type away struct {
	*memory
	gone  atomic.Bool
	asked atomic.Int64
}

func (q *away) Waiting(ctx context.Context) (int, error) {
	q.asked.Add(1)
	if q.gone.Load() {
		return 0, errors.New("away")
	}
	return q.memory.Waiting(ctx)
}
