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
//     When it has done so several times, or the wait that the primary asks for is too long for that, or outlasts the run,
//     it goes to the first retry queue instead, without an attempt, so that another request is the next one. When others
//     are answered then, and the primary asks for as long a wait at it again, that is its own fault, too.
//
// Large bodies are sent a few at a time, so that memory has a bound; no more are asked for than may be in flight.
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
	"sync"
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
	// Identify is its id; one that has none gets one, and keeps it when it is moved.
	Identify() string
	// Attempts is how many replays have been tried.
	Attempts() int
	// RedrivenAt is when an operator has put it back on the queue; zero if none has.
	RedrivenAt() time.Time
	// Size is how many bytes its body has.
	Size() int
	// Done takes it off the queue.
	Done() error
	// Return gives it back.
	Return() error
	// Move puts it on another queue with further message headers, and takes it off this one when that is confirmed.
	Move(ctx context.Context, queue string, headers map[string]any) error
}

// Source is the queue.
type Source interface {
	// Waiting is how many requests are ready. None are, and none under way, when it says so twice and nothing comes.
	Waiting(ctx context.Context) (int, error)
	// Left is the same when what was given back is counted again, or, earlier, when there are enough.
	Left(ctx context.Context, enough int) (int, error)
	// Quiet is for how long nothing at all has come from it.
	Quiet() time.Duration
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
	// MaxAge and Stale: a request that was received, or redriven, longer ago is treated as Stale says. 0 is no limit.
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

// The outcomes. Delivered, Parked and Expired take a request off the books; Retried and Returned leave it on a queue, the
// second without an attempt; Held is on the queue still, because the queue that it should go to would not have it.
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
	// Retrying is how many of those that this run has moved to a retry queue have not come to it again.
	Retrying int `json:"retrying"`
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

// Grace bounds how long [Drainer.Once] goes on after its ctx has ended: answers may come for lastAnswers, what was cut off
// is settled within settling, and the rest is for the last look at the queue and a connection that does not close.
const Grace = 12 * time.Second

const (
	// lastAnswers is for how long requests in flight may go on when the run is to end.
	lastAnswers = 8 * time.Second
	// settling is for how long after that requests may be given back or moved.
	settling = time.Second
	// moveTimeout bounds the move of one request to another queue.
	moveTimeout = 5 * time.Second
	// mostHeld bounds the requests that are sent in vain because no queue would have them, before the run ends. In the next
	// one they are not sent again, so that those behind them have their turn.
	mostHeld = 32
	// mostBytes bounds the bodies in flight, if all are as large as the largest of the last ones; one alone may be larger.
	// One of the largest that RabbitMQ takes (16 MiB) is alone then.
	mostBytes = 24 << 20
	// idle is how long nothing may come before the queue is asked whether anything is left; longer where the source is far
	// away. When something is left, it is asked each stillIdle.
	idle, stillIdle = 25 * time.Millisecond, 200 * time.Millisecond
	// lookEvery bounds how often Ready asks the source, lookTimeout for how long: who asks for it has five seconds.
	lookEvery, lookTimeout = time.Second, 3 * time.Second
)

// Drainer drains one source into one target. Its runs do not overlap.
type Drainer struct {
	options Options
	source  Source
	target  Target
	limiter *rate.Limiter
	turn    turn

	unreachable atomic.Pointer[string] // why the source is, if it is

	running sync.Mutex // held by a run, and for good by Close

	using  sync.Mutex // held by who asks the source: a run, but while it sleeps, or Ready
	looked time.Time  // when Ready has last asked it
	closed bool       // Ready asks no more

	notBefore time.Time      // the primary has asked to be left alone until then
	answered  int            // requests that the primary has answered, but by a pause
	paused    recent[pauses] // of those requests that have paused, without another answer since
	refused   recent[move]   // what the primary has answered, and no queue would have: only the move is tried again
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
	return &Drainer{options: o, source: source, target: target, limiter: rate.NewLimiter(limit, 1)}
}

// Ready says whether the source can be reached. While nothing is sent, it asks: until the next run it may be a day. While
// requests are sent, it says what was so when the source was last asked.
func (d *Drainer) Ready() error {
	if d.using.TryLock() {
		d.look()
		d.using.Unlock()
	}
	if why := d.unreachable.Load(); why != nil {
		return errors.New(*why)
	}
	return nil
}

// look asks the source, once a second at most.
func (d *Drainer) look() {
	if d.closed || time.Since(d.looked) < lookEvery {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	_, err := d.source.Waiting(ctx)
	d.looked = time.Now()
	if err != nil && d.unreachable.Load() == nil {
		d.options.Log.Warn("cannot look at the queue", "error", err)
	}
	d.reached(err)
}

// reached notes whether the source could be reached.
func (d *Drainer) reached(err error) {
	if err == nil {
		d.unreachable.Store(nil)
		return
	}
	why := err.Error()
	d.unreachable.Store(&why)
}

// Close is for after the last run: no other begins, and Ready does not ask the source any more. While a run is under way, it
// does nothing and says false.
func (d *Drainer) Close() bool {
	if !d.running.TryLock() {
		return false
	}
	d.using.Lock()
	defer d.using.Unlock()
	d.closed = true
	return true
}

// Once drains until the queue is empty, the budget is used up, or ctx ends. A request that is cut off at the end goes back,
// and that is not counted as an attempt. While another run is under way, it does nothing, and says so.
func (d *Drainer) Once(ctx context.Context, b Budget) Report {
	if !d.running.TryLock() {
		return Report{Waiting: -1, End: "another run is under way"}
	}
	defer d.running.Unlock()
	d.using.Lock()
	defer d.using.Unlock()
	begin := time.Now()
	window, cancel := ctx, context.CancelFunc(func() {})
	if b.Time > 0 {
		window, cancel = context.WithTimeoutCause(ctx, b.Time, errTime)
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
			waiting, err = r.source.Left(r.window, 1) // what has just been given back may not be counted yet
		}
		if r.window.Err() != nil {
			return r.over()
		}
		r.reached(err)
		switch {
		case err != nil:
			r.trouble("cannot look at the queue", err.Error())
			r.wait(longestWait, 0)
			continue
		case waiting == 0 && len(r.suspects) == 0:
			r.empty = len(r.held) == 0
			return "the queue is empty"
		case waiting == 0: // nothing else is there to tell whose fault it is
			r.letGo()
			r.wait(longestWait, 0)
			continue
		}
		if alive, v := r.target.Probe(r.window); !alive {
			if r.window.Err() != nil {
				return r.over()
			}
			r.trouble("the primary is down", v.Reason)
			r.wait(longestDown, v.After)
			continue
		}
		if !r.answers {
			r.waits = min(r.waits, soonAfterProbe)
		}
		p := r.consume()
		if p != nil {
			r.heed(p.after) // at the end of the run, too: it holds for those to come
		}
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
			r.wait(longestWait, 0)
		}
	}
}

// errTime is why a window ends that the budget bounds.
var errTime = errors.New("its time is over")

func (r *run) over() string {
	if errors.Is(context.Cause(r.window), errTime) {
		return errTime.Error()
	}
	return "it was stopped"
}

// trouble notes what is wrong, and logs it when it is news.
func (r *run) trouble(what, why string) {
	text := fmt.Sprintf("%s: %s", what, why)
	if text != r.report.Trouble {
		r.options.Log.Warn("the drain waits", "because", what, "detail", why)
	}
	r.report.Trouble = text
}
