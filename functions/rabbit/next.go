package rabbit

import (
	"context"
	"time"
)

// Next is the next message, and waits for one as long as ctx lasts; then the error is its cause. Without one, the
// error wraps [ErrDry] when nothing is left on the queue; [ErrStuck] when something is, and does not come;
// [ErrHandOver] when the connection was lost for the broker's own fault; another [Failure] when it was lost, or the
// queue is gone or forbidden. After the first two it may be called again. What is unacked may come back to a queue
// that was dry.
func (s *Source) Next(ctx context.Context) (*Delivery, error) {
	for {
		d, ask, err := s.takeFirst()
		switch {
		case err != nil:
			return nil, s.why(err)
		case d != nil:
			return &Delivery{message: *d, mover: s.mover, inbox: &s.inbox, frame: int(s.frame.Load())}, nil
		}
		if err := s.requeueOverflow(); err != nil { // there is room for them now
			return nil, classify(err)
		}
		if err := s.await(ctx, ask); err != nil {
			return nil, s.why(err)
		}
	}
}

// await waits until there may be something new, and asks the broker when it is time to.
func (s *Source) await(ctx context.Context, ask time.Time) error {
	var due <-chan time.Time
	if !ask.IsZero() {
		timer := time.NewTimer(time.Until(ask))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-s.more:
		return nil
	case <-due:
		return s.askIfDry()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// askIfDry asks the broker whether anything is left, when nothing has come for a while. The caller's context does not
// end the question: that would end the connection, and what is unacked would come again.
func (s *Source) askIfDry() error {
	s.calls.Lock()
	defer s.calls.Unlock()
	if s.link == nil || !s.taking {
		return nil
	}
	since, err := s.conclude(s.link.wire.silence())
	if err != nil || since.IsZero() {
		return err
	}
	defer s.link.within(context.Background())()
	asked := time.Now()
	ready, err := s.askBehind()
	if err == nil {
		s.heard(since, ready, asked)
	}
	return err
}
