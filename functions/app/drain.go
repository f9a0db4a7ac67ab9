package app

import (
	"context"
	"log/slog"

	"fallback/functions/config"
	"fallback/functions/drain"
	"fallback/functions/rabbit"
	"fallback/functions/target"
)

// Drain is a drainer with the queue and the primary that it stands between.
type Drain struct {
	*drain.Drainer
	source  *rabbit.Source
	target  *target.Client
	metrics DrainMetrics
}

// DrainMetrics counts what a drain does. It is an interface for the same reason as [ServerMetrics]; metrics.Worker is one.
type DrainMetrics interface {
	// Settled hears of what became of each request in hand.
	Settled(drain.Outcome)
	// Probed hears whether the primary is alive, each time that it was asked.
	Probed(alive bool)
	// Ran hears of each run, at its end.
	Ran(drain.Report)
}

// NewDrain connects to nothing yet. Settings must have a target URL; metrics may be nil.
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
		Rate: c.DrainRate, Concurrency: c.Concurrency, Log: log,
	}
	for _, r := range c.Topology.Retries {
		options.Retries = append(options.Retries, r.Name)
	}
	if metrics == nil {
		metrics = uncounted{}
	}
	options.Count = metrics.Settled
	return &Drain{drain.New(options, queue{source}, probed{primary, metrics}), source, primary, metrics}, nil
}

// Once drains until the queue is empty, the budget is used up, or ctx ends.
func (d *Drain) Once(ctx context.Context, b drain.Budget) drain.Report {
	report := d.Drainer.Once(ctx, b)
	d.metrics.Ran(report)
	return report
}

// Close ends the connections, but not under a run: what that has not settled goes back to the queue by itself.
func (d *Drain) Close() {
	if d.Drainer.Close() {
		d.source.Close()
		d.target.Close()
	}
}

// queue is a source as the drain knows it.
type queue struct{ *rabbit.Source }

func (q queue) Next(ctx context.Context) (drain.Delivery, error) {
	d, err := q.Source.Next(ctx)
	if err != nil {
		return nil, err // and not an interface that holds a nil pointer
	}
	return d, nil
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
