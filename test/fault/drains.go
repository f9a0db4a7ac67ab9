package fault

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fallback/functions/app"
	"fallback/functions/drain"
	"fallback/functions/envelope"
	"fallback/functions/rabbit"
	"fallback/functions/target"
	"fallback/functions/topology"
)

// wrongSource is a queue for the drain that is wrong on purpose in one way.
type wrongSource struct {
	app.Queue
	early  bool // off the queue before the primary has answered
	unkept bool // what the primary will not take is taken off the queue and put nowhere
	alter  func(*envelope.Request)
	hides  string // a header of the messages that it does not tell
	to     string // the queue that everything is moved to; empty for the right one
	stalls bool   // when one was moved, nothing comes for a while
	drops  int    // so often it loses its connections over what cannot be read
	hasty  bool   // what has come back cannot be read

	reset func()       // loses the connections
	until atomic.Int64 // nothing comes before, in nanoseconds of Unix time
}

// returns is RabbitMQ's header that says how often a message came back.
const returns = "x-delivery-count"

// stallTime is for how long one that was moved holds back all others.
const stallTime = 2 * time.Second

func (s *wrongSource) Next(ctx context.Context) (drain.Delivery, error) {
	select {
	case <-time.After(time.Until(time.Unix(0, s.until.Load()))):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	d, err := s.Queue.Next(ctx)
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
	drain.Delivery
	source *wrongSource
}

func (d wrongDelivery) Request() (*envelope.Request, error) {
	r, err := d.Delivery.Request()
	switch {
	case err != nil && d.source.drops > 0: // a message's own headers, and with them the broker's count, are not there
		d.source.drops--
		d.source.reset()
	case err == nil && d.source.hasty && d.Delivery.Header(returns) != "":
		return nil, errors.New("it has come back")
	case err == nil && d.source.alter != nil:
		d.source.alter(r)
	}
	return r, err
}

func (d wrongDelivery) Header(name string) string {
	if name == d.source.hides {
		return ""
	}
	return d.Delivery.Header(name)
}

func (d wrongDelivery) Done() error {
	if d.source.early {
		return nil
	}
	return d.Delivery.Done()
}

func (d wrongDelivery) Requeue() error {
	if d.source.early {
		return nil
	}
	return d.Delivery.Requeue()
}

func (d wrongDelivery) Move(ctx context.Context, queue string, headers map[string]any) error {
	switch {
	case d.source.unkept:
		return d.Delivery.Done()
	case d.source.to != "":
		queue = d.source.to
	case d.source.stalls:
		d.source.until.Store(time.Now().Add(stallTime).UnixNano())
	}
	return d.Delivery.Move(ctx, queue, headers)
}

// drain replays to the primary as the shipped worker does, but from a wrong source, until ctx ends.
func (s *wrongSource) drain(ctx context.Context, broker, primary string) error {
	queues, err := topology.Of(topology.DefaultQueue)
	if err != nil {
		return err
	}
	to, err := target.New(target.Options{URL: primary, Connections: 8})
	if err != nil {
		return err
	}
	defer to.Close()
	s.Queue = app.Queue{Source: rabbit.NewSource(rabbit.SourceOptions{URL: broker, Queue: queues.Main})}
	defer s.Close()
	options := drain.Options{Parked: queues.Parked, MaxAttempts: 8, Concurrency: 8}
	for _, retry := range queues.Retries {
		options.Retries = append(options.Retries, drain.Retry{Name: retry.Name, TTL: retry.TTL})
	}
	d := drain.New(options, s, to)
	for ctx.Err() == nil {
		d.Once(ctx, drain.Budget{})
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

// drainWrongly drains to the outlet's primary, until the outlet's end.
func (r *rig) drainWrongly(t testing.TB, s *wrongSource) {
	o := r.outlet
	s.reset = o.proxy.reset
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		if err := s.drain(ctx, r.drainURL(), o.primary.URL); err != nil {
			t.Error(err)
		}
	})
	o.end = func() {
		cancel()
		work.Wait()
	}
}

// wrongDrain names, in the environment of this test's own program, the one of wrongDrains that it is to be: a process
// of its own can be killed.
const wrongDrain = "FAULT_WRONG_DRAIN"

var wrongDrains = map[string]*wrongSource{
	"forgetful": {hides: returns},
	"hasty":     {hasty: true},
}
