package drain

import (
	"context"
	"flag"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/target"
)

var crowdOf = flag.Int("drain.crowd", 30_000, "how many requests the largest crowd has")

// TestCrowd holds that others are delivered soon who wait between and behind a crowd of one sender's requests, of
// which the primary takes five a second; that these are not moved again and again, nor too many at the same time; and
// that a crowd that is alone is sent as fast as the primary takes it.
func TestCrowd(t *testing.T) {
	t.Parallel()
	const asked = 2 * time.Second
	for _, row := range []struct {
		name    string
		crowd   int
		between int           // good ones, among the first tenth of it
		behind  int           // good ones
		every   time.Duration // another one comes so often; never, if it is 0
		most    map[string]int
		within  time.Duration // each good one, since it came
		moves   int           // of a request of the crowd, on the average, at most
		taken   int           // of the crowd, at the least
	}{
		{"between and behind", *crowdOf, 500, 500, 0, nil, asked + time.Minute, 6, 0},
		{"behind", 30_000, 0, 1000, 0, nil, asked + time.Minute, 6, 0},
		{"one now and then", 30_000, 0, 1, 7 * time.Second, nil, asked + time.Minute, 10, 0},
		{"one each second", 30_000, 0, 1, time.Second, nil, asked + time.Minute, 10, 0},
		{"full queues", 30_000, 50, 50, 0, map[string]int{"10s": 300, "1m": 600}, asked + time.Minute, 6, 0},
		{"nobody else", 30_000, 0, 0, 0, nil, 0, 3, 20 * 60 * 5 * 8 / 10},
		{"nobody else, and a small one", 1000, 0, 0, 0, nil, 0, 2, 1000},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				if row.most != nil {
					w.most = row.most
				}
				for range row.between {
					w.put(row.crowd/10/row.between, "a", "crowd")
					w.put(1, "a", "good")
				}
				w.put(row.crowd-len(w.ready)+row.between, "a", "crowd")
				w.put(row.behind, "a", "good")
				few := bucket{rate: 5, burst: 5}
				w.answer = func(m *parcel) (target.Verdict, time.Duration) {
					if strings.Contains(m.id, "crowd") && !few.take(time.Now()) {
						return says(429, asked), takes
					}
					return says(200, 0), takes
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
				defer cancel()
				came := w.visited(ctx, row.every)
				s := &mover{session: w.session()}
				worker := New(w.options(), s, s)
				for ctx.Err() == nil && w.left() > 0 {
					run := time.Now()
					worker.Once(ctx, Budget{Time: time.Minute})
					time.Sleep(10*time.Second - time.Since(run)) // the schedule's
				}
				cancel()
				synctest.Wait()
				late, taken := 0, 0
				for id := range w.all {
					at, ok := w.delivered[id]
					switch due := came[id] + row.within; {
					case strings.Contains(id, "crowd"):
						taken += map[bool]int{true: 1}[ok]
					case ok && at > due, !ok && time.Since(w.began) > due:
						late++
					}
				}
				switch {
				case w.lost() != 0:
					t.Errorf("%d lost", w.lost())
				case w.early > 0:
					t.Errorf("%d were sent sooner than the primary asked", w.early)
				case late > 0:
					t.Errorf("%d of the good ones were not delivered within %s", late, row.within)
				case w.moves > row.moves*row.crowd:
					t.Errorf("%d moves of %d, want %d of each", w.moves, row.crowd, row.moves)
				case s.peak > 100:
					t.Errorf("%d were moved at the same time", s.peak)
				case taken < row.taken:
					t.Errorf("%d of the crowd were taken, want %d", taken, row.taken)
				}
				t.Log(taken, "of the crowd;", s.peak, "moves at the same time;", w)
			})
		})
	}
}

// visited puts a good one on the queue each time that every has gone by, and says when which came.
func (w *world) visited(ctx context.Context, every time.Duration) map[string]time.Duration {
	came := map[string]time.Duration{}
	for next := every; every > 0 && next < 20*time.Minute; next += every {
		time.AfterFunc(next, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if ctx.Err() != nil {
				return
			}
			w.put(1, "a", "good")
			came[w.ready[len(w.ready)-1].id] = time.Since(w.began)
			w.signal()
		})
	}
	return came
}

// mover counts how many are moved at the same time.
type mover struct {
	*session
	moving, peak int
}

func (s *mover) Next(ctx context.Context) (Delivery, error) {
	d, err := s.session.Next(ctx)
	if err != nil {
		return nil, err
	}
	return &moved{d.(*delivery), s}, nil
}

type moved struct {
	*delivery
	by *mover
}

func (d *moved) Move(ctx context.Context, queue string, headers map[string]any) error {
	d.count(1)
	defer d.count(-1)
	time.Sleep(10 * time.Millisecond) // the broker's disk
	return d.delivery.Move(ctx, queue, headers)
}

func (d *moved) count(n int) {
	d.delivery.session.mu.Lock()
	defer d.delivery.session.mu.Unlock()
	d.by.moving += n
	d.by.peak = max(d.by.peak, d.by.moving)
}
