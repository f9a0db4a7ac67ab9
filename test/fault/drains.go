package fault

import (
	"context"
	"sync"
	"time"

	"fallback/functions/drain"
	"fallback/functions/envelope"
	"fallback/functions/rabbit"
	"fallback/functions/target"
)

// wrongSource is a queue for the drain that is wrong on purpose in one way.
type wrongSource struct {
	*rabbit.Source
	early  bool // off the queue before the primary has answered
	unkept bool // what the primary will not take is taken off the queue and put nowhere
	alter  func(*envelope.Request)
}

func (s wrongSource) Next(ctx context.Context) (drain.Delivery, error) {
	d, err := s.Source.Next(ctx)
	if err != nil {
		return nil, err
	}
	if s.early {
		if err := d.Done(); err != nil {
			return nil, err
		}
	}
	return wrongDelivery{d, s}, nil
}

type wrongDelivery struct {
	*rabbit.Delivery
	source wrongSource
}

func (d wrongDelivery) Request() (*envelope.Request, error) {
	r, err := d.Delivery.Request()
	if err == nil && d.source.alter != nil {
		d.source.alter(r)
	}
	return r, err
}

func (d wrongDelivery) Done() error {
	if d.source.early {
		return nil
	}
	return d.Delivery.Done()
}

func (d wrongDelivery) Return() error {
	if d.source.early {
		return nil
	}
	return d.Delivery.Return()
}

func (d wrongDelivery) Move(ctx context.Context, queue string, headers map[string]any) error {
	if d.source.unkept {
		return d.Delivery.Done()
	}
	return d.Delivery.Move(ctx, queue, headers)
}

// drainWrongly replays to the outlet's primary as the shipped worker does, but from a wrong source, until the outlet's end.
func (r *rig) drainWrongly(s wrongSource) error {
	o := r.outlet
	primary, err := target.New(target.Options{URL: o.primary.URL, Connections: 8})
	if err != nil {
		return err
	}
	s.Source = rabbit.NewSource(rabbit.SourceOptions{URL: r.drainURL(), Queue: o.queues.Main})
	options := drain.Options{Parked: o.queues.Parked, MaxAttempts: 8, Concurrency: 8}
	for _, retry := range o.queues.Retries {
		options.Retries = append(options.Retries, retry.Name)
	}
	d := drain.New(options, s, primary)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		for ctx.Err() == nil {
			d.Once(ctx, drain.Budget{})
			time.Sleep(50 * time.Millisecond)
		}
		s.Close()
		primary.Close()
	})
	o.end = func() {
		cancel()
		work.Wait()
	}
	return nil
}
