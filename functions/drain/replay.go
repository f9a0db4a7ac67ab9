package drain

import (
	"fmt"
	"time"

	"fallback/functions/target"
)

// answer is what came of a replay.
type answer struct {
	*item
	verdict target.Verdict
	lost    bool // it was not sent: somebody else may have it
}

// replay sends a request once.
func (r *run) replay(it *item, delivery Delivery, try target.Try) {
	a := answer{item: it, lost: delivery.Lost()}
	if !a.lost {
		a.verdict = r.target.Send(r.send, it.request, try)
	}
	r.post(func(now time.Time) { r.answer(a, now) })
}

// isCutOff says that we have ended the replay: its answer says nothing.
func (r *run) isCutOff(v target.Verdict) bool {
	return r.send.Err() != nil && v.Action == target.Pause && v.Status == 0
}

// ruleUnsent rules on what is not to be sent: it cannot be read, is too old, or waits for room on the parked queue.
func (r *run) ruleUnsent(it *item, now time.Time) (ruling, bool) {
	switch {
	case it.unread != nil:
		return ruling{item: it, fate: park, reason: "the message cannot be read: " + it.unread.Error()}, true
	case it.reason != "":
		return ruling{item: it, fate: park, reason: it.reason}, true
	case !r.isStale(it, now):
		return ruling{}, false
	case r.options.Stale == StalePark:
		return ruling{item: it, fate: park, reason: fmt.Sprintf("older than %s", r.options.MaxAge)}, true
	case r.options.Stale == StaleDrop:
		return ruling{item: it, fate: expire}, true
	}
	return ruling{}, false
}

func (r *run) isStale(it *item, now time.Time) bool {
	since := later(it.request.ReceivedAt, it.redriven) // an operator wanted it to be sent after all
	return r.options.MaxAge > 0 && !since.IsZero() && now.Sub(since) > r.options.MaxAge
}
