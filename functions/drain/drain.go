// Package drain empties the queue into the primary: what waited is replayed at a pace that the primary can take.
//
// A run ([Drainer.Once]) asks first whether anything waits and whether the primary is alive; while it is not, nothing is
// taken off the queue, so that no delivery counter of the broker moves. Then it takes requests, one in flight at first,
// more while the answers are good, and settles each by the verdict on its answer:
//
//   - Done: off the queue.
//   - Retry: to the retry queue of its attempt, and from there back to the main queue when its time has come; after the
//     last attempt it is parked.
//   - Park: to the parked queue, with the reason.
//   - Pause: it goes back, and so does everything in hand; the run waits, probes, and begins again with one in flight.
//     A request that pauses again, alone, is kept in hand while the next one is sent: when the primary answers that, it was
//     the first one's own fault, and it is treated as Retry, so that no single request stalls the rest; when several in a
//     row pause, it was the primary's, and their attempts do not count.
//
// An effect always comes before the ack that rests on it: a request is taken off the queue after the primary has answered,
// or after the broker has confirmed that it is on another queue. So a request may arrive twice, under the same
// Idempotency-Key, and is never lost.
package drain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"fallback/functions/envelope"
	"fallback/functions/target"
)

// Delivery is a request in hand. It is settled once, by Done, Return or Move.
type Delivery interface {
	// Request is the captured request; an error says that the message cannot be read as one.
	Request() (*envelope.Request, error)
	// Attempts is how many replays have been tried.
	Attempts() int
	// Done takes it off the queue.
	Done() error
	// Return gives it back.
	Return() error
	// Move puts it on another queue with further message headers, and takes it off this one when that is confirmed.
	Move(ctx context.Context, queue string, headers map[string]any) error
}

// Source is the queue.
type Source interface {
	// Waiting is how many requests are ready.
	Waiting(ctx context.Context) (int, error)
	// Left is the same at the end of a run, when what was given back is counted again.
	Left(ctx context.Context) (int, error)
	// Take begins to take requests, or changes how many may be in hand.
	Take(ctx context.Context, ahead int) error
	// Next waits for the next one.
	Next(ctx context.Context) (Delivery, error)
	// Stop takes no more, and gives back what Next has not returned.
	Stop(ctx context.Context) error
}

// Target is the primary.
type Target interface {
	// Probe asks whether it is alive; the verdict says why not, and for how long it asks to be left alone.
	Probe(ctx context.Context) (alive bool, v target.Verdict)
	// Send replays one request.
	Send(ctx context.Context, r *envelope.Request, attempt int) target.Verdict
}

// What becomes of a request that is older than [Options].MaxAge.
const (
	StaleDeliver = "deliver"
	StalePark    = "park"
	StaleDrop    = "drop"
)

// Options are what a [Drainer] needs.
type Options struct {
	// Parked is the queue of what the primary will not take; Retries are those for the first attempt that failed, the
	// second, and so on; the last one is for all further ones.
	Parked  string
	Retries []string
	// MaxAttempts is how many replays are tried before a request is parked.
	MaxAttempts int
	// MaxAge and Stale: a request that was received longer ago is treated as Stale says. 0 is no limit.
	MaxAge time.Duration
	Stale  string
	// Rate bounds the replays a second; 0 is no limit. Concurrency bounds those in flight.
	Rate        float64
	Concurrency int
	// Log gets what an operator should know.
	Log *slog.Logger
	// Count, if set, is called for each request that is settled, with an [Outcome].
	Count func(Outcome)
}

// Outcome is what became of a request in hand.
type Outcome string

// The outcomes. Delivered, Parked and Expired take a request off the books; Retried and Returned leave it on a queue; Held
// is on the queue still, because the queue that it should go to would not have it.
const (
	Delivered Outcome = "delivered"
	Retried   Outcome = "retried"
	Parked    Outcome = "parked"
	Expired   Outcome = "expired"
	Returned  Outcome = "returned"
	Held      Outcome = "held"
)

// Budget bounds a run. What is in flight when it is used up is finished.
type Budget struct {
	Time     time.Duration // 0 is no limit
	Requests int           // 0 is no limit
}

// Report is what a run did.
type Report struct {
	Delivered int `json:"delivered"`
	Retried   int `json:"retried"`
	Parked    int `json:"parked"`
	Expired   int `json:"expired"`
	Returned  int `json:"returned"`
	Held      int `json:"held"`
	Pauses    int `json:"pauses"`
	// Waiting is how many were ready on the queue at the end; -1 if that is not known.
	Waiting int `json:"waiting"`
	// End is why the run ended, Trouble the last thing that went wrong, if anything did.
	End     string  `json:"end"`
	Trouble string  `json:"trouble,omitempty"`
	Seconds float64 `json:"seconds"`
}

// The headers of a message that was moved, beside [HeaderAttempt].
const (
	HeaderAttempt  = "fallback-attempt"   // replays tried so far
	HeaderReason   = "fallback-reason"    // why it is parked, for people
	HeaderStatus   = "fallback-status"    // of the primary's last answer; 0 if there was none
	HeaderParkedAt = "fallback-parked-at" // RFC 3339, UTC
)

const (
	// grace is for how long requests in flight may go on when the run is to end.
	grace = 8 * time.Second
	// moveTimeout bounds the move of one request to another queue.
	moveTimeout = 5 * time.Second
	// mostHeld bounds the requests that are kept in hand because no queue would have them.
	mostHeld = 32
	// idle is how long nothing may come before the queue is asked whether anything is left.
	idle = 200 * time.Millisecond
)

// Drainer drains one source into one target. Its runs must not overlap.
type Drainer struct {
	options Options
	source  Source
	target  Target
	limiter *rate.Limiter

	unreachable atomic.Pointer[string] // why the source is, if it is

	notBefore time.Time      // the primary has asked to be left alone until then
	paused    map[string]int // how often each of those requests has paused that have, without another answer since
}

// New returns a Drainer.
func New(o Options, source Source, target Target) *Drainer {
	o.Concurrency = max(o.Concurrency, 1)
	o.MaxAttempts = max(o.MaxAttempts, 1)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Count == nil {
		o.Count = func(Outcome) {}
	}
	limit := rate.Limit(o.Rate)
	if o.Rate <= 0 {
		limit = rate.Inf
	}
	return &Drainer{options: o, source: source, target: target, limiter: rate.NewLimiter(limit, 1), paused: map[string]int{}}
}

// Ready says whether the source could be reached when it was last asked; before that, it says so.
func (d *Drainer) Ready() error {
	if why := d.unreachable.Load(); why != nil {
		return errors.New(*why)
	}
	return nil
}

// Once drains until the queue is empty, the budget is used up, or ctx ends.
func (d *Drainer) Once(ctx context.Context, b Budget) Report {
	begin := time.Now()
	window, cancel := ctx, context.CancelFunc(func() {})
	if b.Time > 0 {
		window, cancel = context.WithTimeout(ctx, b.Time)
	}
	defer cancel()
	r := newRun(d, ctx, window, b.Requests)
	r.report.End = r.drain()
	r.end()
	r.report.Seconds = time.Since(begin).Seconds()
	return r.report
}

// drain goes from probe to probe, and returns why the run ends.
func (r *run) drain() string {
	r.sleep(time.Until(r.notBefore))
	for {
		waiting, err := r.source.Waiting(r.window)
		if err == nil && waiting == 0 {
			waiting, err = r.source.Left(r.window) // what has just been given back may not be counted yet
		}
		switch {
		case r.window.Err() != nil:
			return r.over()
		case err != nil:
			why := err.Error()
			r.unreachable.Store(&why)
			r.trouble("cannot look at the queue", why)
			r.wait(0)
			continue
		case waiting == 0 && len(r.suspects) == 0:
			r.unreachable.Store(nil)
			return "the queue is empty"
		case waiting == 0: // nothing else is there to tell whose fault it is
			r.letGo()
			r.wait(0)
			continue
		}
		r.unreachable.Store(nil)
		if alive, v := r.target.Probe(r.window); !alive {
			if r.window.Err() != nil {
				return r.over()
			}
			r.trouble("the primary is down", v.Reason)
			r.wait(v.After)
			continue
		}
		if !r.answers {
			r.waits = min(r.waits, soonAfterProbe)
		}
		p := r.consume()
		switch {
		case r.window.Err() != nil:
			return r.over()
		case r.left == 0:
			return "the budget of requests is used up"
		case r.overfull:
			return "too many requests that no queue would have"
		case p != nil:
			r.report.Pauses++
			r.trouble("paused", p.reason)
			r.wait(p.after)
		}
	}
}

func (r *run) over() string {
	if r.ctx.Err() != nil {
		return "it was stopped"
	}
	return "its time is over"
}

// trouble notes what is wrong, and logs it when it is news.
func (r *run) trouble(what, why string) {
	text := fmt.Sprintf("%s: %s", what, why)
	if text != r.report.Trouble {
		r.options.Log.Warn("the drain waits", "because", what, "detail", why)
	}
	r.report.Trouble = text
}
