package rabbit

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"fallback/functions/backoff"
)

// redialEvery is the least time between two connections, so that one that is lost again and again costs little.
const redialEvery = 100 * time.Millisecond

// holdOffTime is how long publishes keep away after one that the user may not do.
const holdOffTime = time.Second

// sessions has one session at a time. It makes one when it is first needed, and another whenever that is lost or in
// doubt.
type sessions struct {
	options confirmerOptions
	states  *states

	life context.Context // ends with close: longer than any publish
	end  context.CancelFunc
	work sync.WaitGroup // every goroutine

	current  atomic.Pointer[session]
	dialling singleflight.Group // one try to connect at a time

	mu       sync.Mutex // guards the rest
	closed   bool
	failures int       // to connect, in a row
	retryAt  time.Time // no try before
	lastErr  error     // of the last try
}

func newSessions(o confirmerOptions) *sessions {
	s := &sessions{options: o, states: &states{log: o.log}}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// get is the session to use: the present one, or the outcome of the one try to connect that is under way or may now
// begin. It does not wait for a second try.
func (all *sessions) get(ctx context.Context) (*session, error) {
	if s := all.current.Load(); s != nil && s.usable() {
		return s, nil
	}
	if all.untilRetry() > 0 {
		all.mu.Lock()
		defer all.mu.Unlock()
		return nil, all.lastErr
	}
	select {
	case r := <-all.dialling.DoChan("", func() (any, error) { return all.reconnect() }):
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*session), nil
	case <-ctx.Done():
		return nil, ErrUnavailable
	}
}

// reconnect makes a new session the current one.
func (all *sessions) reconnect() (*session, error) {
	if !all.begin() {
		return nil, ErrClosed
	}
	defer all.work.Done()
	old := all.current.Load()
	if old != nil && old.usable() {
		return old, nil // made by a try that ended just now
	}
	if old != nil {
		old.retire()
		sleep(all.life, time.Until(old.opened.Add(redialEvery)))
	}
	s, err := openSession(all.life, all.options)
	if err != nil {
		return nil, all.failed(err)
	}
	all.mu.Lock()
	all.failures, all.retryAt = 0, time.Time{}
	all.mu.Unlock()
	all.states.forget("alarm")
	all.states.change("connection", "connected", slog.LevelInfo, "connected to the broker")
	all.current.Store(s)
	all.work.Add(2)
	go all.watch(s)
	go all.closeWhenRetired(s)
	return s, nil
}

// begin counts one more goroutine, unless all is closed.
func (all *sessions) begin() bool {
	all.mu.Lock()
	defer all.mu.Unlock()
	if !all.closed {
		all.work.Add(1)
	}
	return !all.closed
}

// failed notes a failed try to connect and when the next one may be.
func (all *sessions) failed(err error) error {
	const first, longest = 100 * time.Millisecond, time.Second
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.closed {
		return ErrClosed
	}
	wait := backoff.Jitter(nil).Shorten(backoff.Wait(all.failures, first, longest), 2)
	all.failures++
	all.retryAt = time.Now().Add(wait)
	all.lastErr = fmt.Errorf("%w: %w", ErrUnavailable, err)
	all.states.change("connection", hint(err), slog.LevelError, "cannot connect to the broker; trying again",
		"error", err, "hint", hint(err))
	return all.lastErr
}

// holdOff keeps publishes away from the broker for a while: the next would be refused as this one, at the price of a
// connection.
func (all *sessions) holdOff(err error) {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.retryAt, all.lastErr = time.Now().Add(holdOffTime), err
}

// untilRetry is how long until the next try may be; not positive if it may be now.
func (all *sessions) untilRetry() time.Duration {
	all.mu.Lock()
	defer all.mu.Unlock()
	return time.Until(all.retryAt)
}

func (all *sessions) watch(s *session) {
	defer all.work.Done()
	err := s.watch(
		func(reason string) {
			all.states.change("alarm", reason, slog.LevelError, "the broker takes no messages", "reason", reason)
		},
		func() { all.states.change("alarm", "", slog.LevelInfo, "the broker takes messages again") },
	)
	if err != nil && all.life.Err() == nil && all.current.Load() == s && !s.givenUp.Load() {
		all.states.change("connection", "lost", slog.LevelWarn, "connection to the broker lost; connecting again",
			"error", err)
	}
}

// closeWhenRetired closes a session when those in flight on it have had their time.
func (all *sessions) closeWhenRetired(s *session) {
	defer all.work.Done()
	select {
	case <-s.retired:
		grace := time.NewTimer(all.options.grace)
		defer grace.Stop()
		select {
		case <-s.watched: // closed by the broker
		case <-grace.C:
		case <-all.life.Done():
		}
	case <-all.life.Done():
		s.retire()
	}
	s.close()
	<-s.watched
}

// close ends the session and every goroutine.
func (all *sessions) close() {
	all.mu.Lock()
	all.closed = true
	all.mu.Unlock()
	all.end()
	all.work.Wait()
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
