// Package drain empties the queue into the primary: what waited is replayed as soon as the primary takes it, whatever
// else is on the queue.
//
// A run ([Drainer.Once]) is a loop without I/O. Requests arrive from a feeder; the judge says when it is the turn of
// each; it is replayed; the judge says what its answer means, for it and for others; it is settled as the judge has
// ruled.
//
//   - run.go, once.go, window.go, late.go: the loop, its limits, and what it may do when.
//   - feed.go, course.go, replay.go, settle.go, events.go: what a request goes through, in that order; item.go is what
//     is known of it.
//   - judge.go, suspended.go, groups.go, accepted.go: whose fault an answer is. Its table is TestJudge.
//   - outage.go: nothing is sent while it is everybody's, until a probe and a trial say otherwise.
//   - admit.go, spacing.go: when a request may be sent that has not been; search.go: who else is behind a crowd of one
//     sender's.
//   - solo.go: a request that ends workers; remembered.go: one that comes again although it was ruled on; detour.go:
//     the way past a message that the broker cannot hand over.
//   - pace.go, health.go, report.go: how many at a time; what is wrong; what a run did.
//
// An effect always comes before the ack that rests on it: a request is taken off the queue after the primary has
// answered, or after the broker has confirmed that it is on another queue. So a request may arrive twice, under the
// same Idempotency-Key, and is never lost.
package drain

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"fallback/functions/backoff"
	"fallback/functions/envelope"
	"fallback/functions/target"
)

// Delivery is a request that was delivered to us. It is settled once, by Done, Requeue or Move. An error of these that
// wraps [ErrLost] says that the connection has gone, and the request comes again.
type Delivery interface {
	// Request is the captured request; an error says that the message cannot be read as one.
	Request() (*envelope.Request, error)
	// Identify is its id; one that has none gets one, and keeps it when it is moved.
	Identify() string
	// Header is the value of one of the message's own headers; empty if there is none.
	Header(name string) string
	// Size is how many bytes its body has.
	Size() int
	// Lost says that the connection that it came by is gone: it comes again.
	Lost() bool
	// Done takes it off the queue.
	Done() error
	// Requeue puts it back to where it was.
	Requeue() error
	// Forget drops its body, when Requeue is all that is left to do.
	Forget()
	// Move puts it on another queue with further message headers, or without those whose value is nil, and takes it
	// off this one when that is confirmed. An error that wraps [ErrCopied] beside [ErrLost] says that it is on both,
	// one that wraps [ErrUnconfirmed] that it may be.
	Move(ctx context.Context, queue string, headers map[string]any) error
}

// Source is the queue. Its methods are for one goroutine at a time. An error of Waiting, Left, Take or Stop says that
// the queue cannot be read: the source was lost, or is gone or forbidden. Take's wraps [ErrHandOver] like Next's.
type Source interface {
	// Waiting is how many requests are ready.
	Waiting(ctx context.Context) (int, error)
	// Left is the same when what was requeued is counted again, or, earlier, when there are enough.
	Left(ctx context.Context, enough int) (int, error)
	// Take begins to take requests, with at most prefetch of them not settled.
	Take(ctx context.Context, prefetch int) error
	// Next waits for the next one. It answers [ErrDry] when nothing more is on the queue, [ErrHandOver] when the source
	// was lost for that, and any other error when it was lost, or something is on the queue and does not come.
	Next(ctx context.Context) (Delivery, error)
	// Pass takes some of what is behind requests that cannot be handed over, while nothing else is taken; what it has
	// returned is to be settled before the next call. It answers [ErrHandOver], also beside what it returns, as long
	// as there are such.
	Pass(ctx context.Context) ([]Delivery, error)
	// Stop takes no more, and requeues what Next has not returned.
	Stop(ctx context.Context) error
	// CountsRequeues says whether the count of returns (x-delivery-count) includes what was requeued; true while that
	// is not known. It may be called at any time.
	CountsRequeues() bool
}

// Errors of a [Source], and of its deliveries.
var (
	ErrDry    = errors.New("nothing more is on the queue")
	ErrLost   = errors.New("the connection to the broker was lost")
	ErrCopied = errors.New("it is on the other queue, too")
	// ErrUnconfirmed: the broker did not say in time whether it is on the other queue.
	ErrUnconfirmed = errors.New("it may be on the other queue, too")
	ErrHandOver    = errors.New("the broker cannot hand over a message")
)

// Target is the primary.
type Target interface {
	// Probe asks whether it is alive; the verdict says why not.
	Probe(ctx context.Context) (alive bool, v target.Verdict)
	// Send replays one request.
	Send(ctx context.Context, r *envelope.Request, try target.Try) target.Verdict
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
	// second, and so on, from the shortest to the longest; the last one is for all further ones.
	Parked  string
	Retries []Retry
	// MaxAttempts is how many replays are tried before a request is parked.
	MaxAttempts int
	// MaxAge and Stale: a request that was received, or redriven, longer ago is treated as Stale says. 0 is no limit.
	MaxAge time.Duration
	Stale  string
	// Timeout is how long a replay may take; 0 if the target sees to that.
	Timeout time.Duration
	// Rate bounds the replays a second; 0 is no limit. Concurrency bounds those in flight.
	Rate        float64
	Concurrency int
	// Log gets what an operator should know.
	Log *slog.Logger
	// Count, if set, is called with the [Outcome] of each request that was settled, and of one that no queue takes
	// (Held); not where the broker may not have heard of it.
	Count func(Outcome)
	// Tell, if set, is called when a [Trouble] begins, and when it ends.
	Tell func(t Trouble, on bool)

	jitter backoff.Jitter // of tests
}

// Retry is a queue whose messages go back to the main one after TTL.
type Retry struct {
	Name string
	TTL  time.Duration
}

// longestRetry is how long a request waits on a retry queue at most.
func (o *Options) longestRetry() time.Duration {
	if len(o.Retries) == 0 {
		return 0
	}
	return o.Retries[len(o.Retries)-1].TTL
}

// Budget bounds a run. What is in flight when it is used up is finished.
type Budget struct {
	Time     time.Duration // 0 is no limit
	Requests int           // 0 is no limit
}

// Drainer drains one source into one target. Its runs do not overlap.
type Drainer struct {
	options Options
	source  Source
	target  Target
	limiter *rate.Limiter

	troubles troubles

	running sync.Mutex // held by a run, and for good by Close

	occupied atomic.Bool // requests are with a run
	using    sync.Mutex  // held by whoever uses the source: a run's goroutine, or Ready
	looked   time.Time   // when Ready has last asked it
	closed   bool        // Ready asks no more

	// What a run leaves for the next one; its loop owns it.
	judge      judge
	permit     permit
	returned   int  // how often this process may have given a message back
	wary       int  // messages that came back before it began
	solos      int  // that went well
	met        bool // one that is to be replayed alone, since the process began
	remembered remembered
	detour     detour
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
	if o.Tell == nil {
		o.Tell = func(Trouble, bool) {}
	}
	limit := rate.Limit(o.Rate)
	if o.Rate <= 0 {
		limit = rate.Inf
	}
	return &Drainer{
		options: o, source: source, target: target, limiter: rate.NewLimiter(limit, 1),
		judge: judge{groups: newGroups(), jitter: o.jitter}, remembered: newRemembered(),
		troubles: troubles{why: map[Trouble]string{}, met: map[Trouble]time.Time{}, tell: o.Tell},
	}
}
