package drain

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// settled is what became of a request.
type settled struct {
	ruling
	outcome Outcome
	err     error
}

// settle does what was ruled, in a goroutine of its own.
func (d *Drainer) settle(ctx context.Context, r ruling, now time.Time) (s settled) {
	it := r.item
	defer func() {
		if s.ruling = r; s.outcome == Held {
			it.delivery.Forget()
			it.request = nil
		}
	}()
	m := it.marks
	if !it.sent.IsZero() {
		m.badAt = now
	}
	wait := r.wait
	if it.verdict.After > 0 { // else it was another that was asked to wait
		// another worker may have heard of it meanwhile
		m.notBefore = later(m.notBefore, it.heard.Add(it.verdict.After))
		wait = max(wait, m.notBefore.Sub(now))
	}
	switch r.fate {
	case deliver:
		return settled{outcome: Delivered, err: it.delivery.Done()}
	case expire:
		return settled{outcome: Expired, err: it.delivery.Done()}
	case requeue:
		return settled{outcome: Returned, err: it.delivery.Requeue()}
	case uncopy:
		return settled{outcome: r.copied, err: it.delivery.Done()}
	case aside:
		m.asides++
		return d.move(ctx, it, Aside, d.fitting(wait), m.headers())
	case retry:
		if it.verdict.Again > 0 {
			m.conflicts++
		}
		if m.attempts++; m.attempts < d.options.MaxAttempts && len(d.options.Retries) > 0 {
			m.asides = 0
			return d.move(ctx, it, Retried, max(min(m.attempts, len(d.options.Retries))-1, d.fitting(wait)),
				m.headers())
		}
		m.reason = fmt.Sprintf("given up after %d attempts; the last: %s", m.attempts, r.reason)
		return d.park(ctx, it, m)
	case park:
		if !it.sent.IsZero() {
			m.attempts++
		}
	}
	m.reason = r.reason
	return d.park(ctx, it, m)
}

// park moves a request to the parked queue. When that has no room for it, it goes to the longest retry queue, and from
// there to be parked, without being sent again.
func (d *Drainer) park(ctx context.Context, it *item, m marks) settled {
	m.asides, m.conflicts, m.badAt, m.notBefore = 0, 0, time.Time{}, time.Time{}
	headers := m.headers()
	headers[HeaderStatus], headers[HeaderParkedAt] = int64(it.verdict.Status), time.Now().UTC().Format(time.RFC3339)
	err := d.moveTo(ctx, it, d.options.Parked, headers)
	if err == nil || errors.Is(err, ErrLost) || errors.Is(err, ErrUnconfirmed) || len(d.options.Retries) == 0 {
		return settled{outcome: outcomeOr(Parked, err), err: err}
	}
	delete(headers, HeaderParkedAt)
	out := d.move(ctx, it, Aside, len(d.options.Retries)-1, headers)
	out.err = errors.Join(err, out.err)
	return out
}

// fitting is the retry queue with the longest TTL that is no longer than a wait; the shortest, if none is.
func (d *Drainer) fitting(wait time.Duration) (which int) {
	for i, q := range d.options.Retries {
		if q.TTL <= wait {
			which = i
		}
	}
	return which
}

// move moves a request to a retry queue, or the next longer one that takes it. Where it is not known whether one did,
// no other is tried: it would be on both.
func (d *Drainer) move(ctx context.Context, it *item, outcome Outcome, which int, headers map[string]any) settled {
	var err error
	for _, q := range d.options.Retries[min(which, len(d.options.Retries)):] {
		if err = d.moveTo(ctx, it, q.Name, headers); err == nil || errors.Is(err, ErrLost) ||
			errors.Is(err, ErrUnconfirmed) {
			break
		}
	}
	return settled{outcome: outcomeOr(outcome, err), err: err}
}

func (d *Drainer) moveTo(ctx context.Context, it *item, queue string, headers map[string]any) error {
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	if err := it.delivery.Move(ctx, queue, headers); err != nil {
		return fmt.Errorf("queue %s: %w", queue, err)
	}
	return nil
}

// outcomeOr is Held where there was an error: the request is on its queue still. After [ErrUnconfirmed] it may be on
// another, too.
func outcomeOr(outcome Outcome, err error) Outcome {
	if err != nil && !errors.Is(err, ErrCopied) {
		return Held
	}
	return outcome
}
