package rabbit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// fewPassing is how many connections go past a message that the broker cannot hand over, mostPassing how many when
	// there are several such messages: each takes one of the connections with it.
	fewPassing, mostPassing = 4, 16
	// passTime bounds how long each of them waits for a message.
	passTime = time.Second
)

// Pass takes some of what is behind messages that the broker cannot hand over. It closes the connection by which it
// tries to, and then they are the first on the queue again. So several connections begin to take at the same time, one
// message each and no more: who gets such a message loses nothing but the connection, and the others have those behind
// it. They are made here, and kept for the next call, unless nothing has come and none was lost. All that is returned
// must be settled before the next call of Pass, Take or Close, which may end its connections.
//
// The error wraps another [Failure] when a connection could not be made, or the queue is gone or forbidden, and else
// [ErrHandOver] when there was such a message; both also beside what has been taken.
func (s *Source) Pass(ctx context.Context) (taken []*Delivery, err error) {
	s.passing = max(s.passing, fewPassing)
	for len(s.passers) < s.passing {
		s.passers = append(s.passers, newSource(s.options, s.mover))
	}
	taken, lost, err := passAll(ctx, s.passers)
	switch {
	case err != nil:
		return taken, err
	case lost == s.passing && len(taken) == 0:
		s.passing = min(2*s.passing, mostPassing)
	case lost == 0 && len(taken) == 0: // there is nothing to go past
		s.closePassers()
	}
	if lost > 0 {
		err = ErrHandOver
	}
	return taken, err
}

// passAll takes with all of them at once.
func passAll(ctx context.Context, passers []*Source) (taken []*Delivery, lost int, err error) {
	ready := make(chan struct{})
	results := make(chan passed)
	var connected sync.WaitGroup
	for _, one := range passers {
		connected.Add(1)
		go func() { results <- one.passOne(ctx, connected.Done, ready) }()
	}
	connected.Wait()
	close(ready)
	for range passers {
		r := <-results
		if r.delivery != nil {
			taken = append(taken, r.delivery)
		}
		switch {
		case errors.Is(r.err, ErrHandOver):
			lost++
		case r.err != nil:
			err = r.err
		}
	}
	return taken, lost, err
}

// passed is what one connection has come to.
type passed struct {
	delivery *Delivery
	err      error
}

// passOne takes one message at most, when all are ready.
func (s *Source) passOne(ctx context.Context, connected func(), ready <-chan struct{}) (p passed) {
	s.calls.Lock()
	err := s.connect(ctx)
	s.calls.Unlock()
	connected()
	if err != nil {
		return passed{err: err}
	}
	<-ready
	if err := s.Take(ctx, 1); err != nil {
		return passed{err: err}
	}
	waiting, cancel := context.WithTimeout(ctx, passTime)
	defer cancel()
	p.delivery, p.err = s.Next(waiting)
	if waiting.Err() != nil || errors.Is(p.err, ErrDry) {
		p.err = nil
	}
	// before what has come is settled: nothing is to come in its place
	if err := s.Stop(ctx); err != nil && p.err == nil {
		p.err = s.why(err)
	}
	return p
}

// closePassers ends the connections that [Source.Pass] has made.
func (s *Source) closePassers() {
	for _, one := range s.passers {
		one.calls.Lock()
		one.disconnect()
		one.calls.Unlock()
	}
	s.passers, s.passing = nil, 0
}

// why is a loss of the connection as [ErrHandOver], where the broker has closed it for a fault of its own.
func (s *Source) why(err error) error {
	if !errors.Is(err, ErrUnavailable) {
		return err
	}
	s.calls.Lock()
	defer s.calls.Unlock()
	if cause := s.closed.why(); cause != nil && cause.Code == amqp.InternalError {
		return fmt.Errorf("%w: %w", ErrHandOver, cause)
	}
	return err
}
