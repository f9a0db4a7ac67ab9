package drain

import (
	"fmt"
	"log/slog"
)

// Outcome is what became of a request that was with us.
type Outcome string

// The outcomes. Delivered, Parked and Expired take a request off the books; Retried and Aside leave it on a retry
// queue, the second without an attempt; Returned leaves it where it was, and so does Held, because no queue takes it.
const (
	Delivered Outcome = "delivered"
	Retried   Outcome = "retried"
	Aside     Outcome = "aside"
	Parked    Outcome = "parked"
	Expired   Outcome = "expired"
	Returned  Outcome = "returned"
	Held      Outcome = "held"
)

// Outcomes are all that there are.
func Outcomes() []Outcome {
	return []Outcome{Delivered, Retried, Aside, Parked, Expired, Returned, Held}
}

// Report is what a run did.
type Report struct {
	Delivered int `json:"delivered"`
	Retried   int `json:"retried"`
	Aside     int `json:"aside"`
	Parked    int `json:"parked"`
	Expired   int `json:"expired"`
	Returned  int `json:"returned"`
	Held      int `json:"held"`
	Pauses    int `json:"pauses"`
	// Waiting is how many were ready on the queue at the end; -1 if that is not known.
	Waiting int `json:"waiting"`
	// Retrying is how many of those that this run has moved to a retry queue have not come to it again; 16,384 at most.
	Retrying int `json:"retrying"`
	// End is why the run ended, LastError the last thing that went wrong, if anything did.
	End       string  `json:"end"`
	LastError string  `json:"last_error,omitempty"`
	Seconds   float64 `json:"seconds"`
}

// books are the accounts of a run.
type books struct {
	report Report
	away   map[string]bool // the keys of those on a retry queue that have not come again
	count  func(Outcome)
	log    *slog.Logger
}

// mostAway bounds how many are remembered.
const mostAway = 1 << 14

func (b *books) arrived(it *item) { delete(b.away, it.key) }

func (b *books) settled(s settled) {
	switch s.outcome {
	case Delivered:
		if s.acked {
			return // it was counted
		}
		b.report.Delivered++
	case Retried:
		b.report.Retried++
	case Aside:
		b.report.Aside++
	case Parked:
		b.report.Parked++
	case Expired:
		b.report.Expired++
	case Returned:
		b.report.Returned++
	case Held:
		if s.again {
			return // it was counted
		}
		b.report.Held++
	}
	b.count(s.outcome)
	if (s.outcome == Retried || s.outcome == Aside) && len(b.away) < mostAway {
		b.away[s.key] = true
	}
	if s.err != nil {
		what := "the parked queue takes no more: a request waits on a retry queue, to be parked"
		if s.outcome == Held {
			what = "a request stays where it is: no queue is known to have taken it"
		}
		b.report.LastError = s.err.Error()
		b.log.Error(what, "id", s.key, "error", s.err)
	}
}

func (b *books) paused(why string) {
	b.report.Pauses++
	b.note("paused", why)
}

// note notes what is wrong, and logs it when it is news.
func (b *books) note(what, why string) {
	text := fmt.Sprintf("%s: %s", what, why)
	if text != b.report.LastError {
		b.log.Warn(what, "detail", why)
	}
	b.report.LastError = text
}
