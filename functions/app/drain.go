package app

import (
	"context"
	"errors"
	"log/slog"

	"fallback/functions/config"
	"fallback/functions/drain"
	"fallback/functions/rabbit"
	"fallback/functions/target"
)

// Drain is a drainer with the queue and the primary that it stands between.
type Drain struct {
	drainer *drain.Drainer
	source  *rabbit.Source
	target  *target.Client
	metrics DrainMetrics
}

// DrainMetrics counts what a drain does. It is an interface for the same reason as [ServerMetrics]; metrics.Worker is
// one.
type DrainMetrics interface {
	// Settled hears what became of each request that was with a run; Returned and Held are still on their queue.
	Settled(drain.Outcome)
	// Probed hears whether the primary is alive, each time that it was asked.
	Probed(alive bool)
	// Troubled hears of a trouble that begins or ends.
	Troubled(t drain.Trouble, on bool)
	// Ran hears of each run, at its end.
	Ran(drain.Report)
}

// NewDrain connects to nothing yet. Settings must have a target URL; metrics may be nil. The error is of a
// setting of the target, or of HTTP_PROXY.
func NewDrain(c config.Config, log *slog.Logger, metrics DrainMetrics) (*Drain, error) {
	primary, err := target.New(target.Options{
		URL: c.TargetURL.Reveal(), ProbePath: c.ProbePath, Timeout: c.TargetTimeout, Secret: c.ReplaySecret.Reveal(),
		Connections: c.Concurrency,
	})
	if err != nil {
		return nil, err
	}
	source := rabbit.NewSource(rabbit.SourceOptions{URL: c.AMQPServerURL.Reveal(), Queue: c.Queue, Log: log})
	options := drain.Options{
		Parked: c.Topology.Parked, MaxAttempts: c.MaxAttempts, MaxAge: c.MaxAge, Stale: c.Stale,
		Timeout: c.TargetTimeout, Rate: c.DrainRate, Concurrency: c.Concurrency, Log: log,
	}
	for _, r := range c.Topology.Retries {
		options.Retries = append(options.Retries, drain.Retry{Name: r.Name, TTL: r.TTL})
	}
	if metrics == nil {
		metrics = uncounted{}
	}
	options.Count, options.Tell = metrics.Settled, metrics.Troubled
	return &Drain{drain.New(options, Queue{source}, probed{primary, metrics}), source, primary, metrics}, nil
}

// Once drains until the queue is empty, the budget is used up, or ctx ends.
func (d *Drain) Once(ctx context.Context, b drain.Budget) drain.Report {
	report := d.drainer.Once(ctx, b)
	d.metrics.Ran(report)
	return report
}

// Ready is [drain.Drainer.Ready].
func (d *Drain) Ready() error { return d.drainer.Ready() }

// Close ends the connections, but not under a run: what that has not settled goes back to the queue by itself.
func (d *Drain) Close() {
	if d.drainer.Close() {
		d.source.Close()
		d.target.Close()
	}
}

// Queue is a source as the drain knows it.
type Queue struct{ *rabbit.Source }

// Next is the source's, with the drain's own errors where it knows them.
func (q Queue) Next(ctx context.Context) (drain.Delivery, error) {
	d, err := q.Source.Next(ctx)
	if err != nil {
		return nil, ended(err)
	}
	return delivery{d}, nil
}

// Take is the source's, with the drain's own errors where it knows them, as Pass is.
func (q Queue) Take(ctx context.Context, prefetch int) error {
	return ended(q.Source.Take(ctx, prefetch))
}

// Pass is the source's.
func (q Queue) Pass(ctx context.Context) (taken []drain.Delivery, err error) {
	messages, err := q.Source.Pass(ctx)
	for _, d := range messages {
		taken = append(taken, delivery{d})
	}
	return taken, ended(err)
}

// ended says in the drain's words why a source gives nothing.
func ended(err error) error {
	switch {
	case errors.Is(err, rabbit.ErrDry):
		return known{err, []error{drain.ErrDry}}
	case errors.Is(err, rabbit.ErrHandOver):
		return known{err, []error{drain.ErrHandOver}}
	}
	return err
}

// known is an error that the drain knows as some of its own; it says what it said.
type known struct {
	error
	as []error
}

func (k known) Unwrap() []error { return append([]error{k.error}, k.as...) }

// delivery is a message as the drain knows it.
type delivery struct{ *rabbit.Delivery }

func (d delivery) Done() error    { return lost(d.Delivery.Done()) }
func (d delivery) Requeue() error { return lost(d.Delivery.Requeue()) }

func (d delivery) Move(ctx context.Context, queue string, headers map[string]any) error {
	return lost(d.Delivery.Move(ctx, queue, headers))
}

// lost says in the drain's words that a message comes again, or may be on two queues.
func lost(err error) error {
	switch {
	case errors.Is(err, rabbit.ErrCopied):
		return known{err, []error{drain.ErrCopied, drain.ErrLost}}
	case errors.Is(err, rabbit.ErrLostAck):
		return known{err, []error{drain.ErrLost}}
	case errors.Is(err, rabbit.ErrUnconfirmed):
		return known{err, []error{drain.ErrUnconfirmed}}
	}
	return err
}

// probed is a target whose probes are heard of.
type probed struct {
	drain.Target
	metrics DrainMetrics
}

func (p probed) Probe(ctx context.Context) (alive bool, v target.Verdict) {
	alive, v = p.Target.Probe(ctx)
	if ctx.Err() == nil { // else it was cut off, and says nothing of the primary
		p.metrics.Probed(alive)
	}
	return alive, v
}

// uncounted is no metrics.
type uncounted struct{}

func (uncounted) Settled(drain.Outcome) {}
func (uncounted) Probed(bool)           {}
func (uncounted) Ran(drain.Report)      {}

func (uncounted) Troubled(drain.Trouble, bool) {}
