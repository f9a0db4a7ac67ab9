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
	source *rabbit.Source
	target *target.Client
}

// NewDrain connects to nothing yet. Settings must have a target URL.
func NewDrain(c config.Config, log *slog.Logger) (*Drain, error) {
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
	return &Drain{drain.New(options, queue{source}, primary), source, primary}, nil
}

// Close ends the connections.
func (d *Drain) Close() {
	d.source.Close()
	d.target.Close()
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
