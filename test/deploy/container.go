package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// containers is what a deployed function is on every platform: it runs one invocation at a time in one process, which
// is kept between them. The platforms start more processes for concurrent invocations; here they wait for their turn.
type containers struct {
	launch func(ctx context.Context) (container, error) // starts a process and returns when it is ready
	log    *logbook
	turn   chan struct{} // holds one token; who took it may use and replace the process

	mu     sync.Mutex // guards what follows
	kept   container  // nil before the first, and after one was thrown away
	starts int
	faults []error
	closed bool
}

// container is one process with the platform's side of it. One goroutine at a time calls its methods, but for pause and
// resume.
type container interface {
	// invoke answers one event; the id is the platform's. The process must not be frozen.
	invoke(ctx context.Context, id string, event json.RawMessage) (json.RawMessage, error)
	// end ends the process in order, as its platform does, and leaves nothing running.
	end() error
	// kill ends it at once.
	kill()
	pause() error
	resume() error
	pid() int
	readyAfter() time.Duration
}

// begin starts the first process.
func (c *containers) begin(ctx context.Context) error {
	c.turn = make(chan struct{}, 1)
	if _, err := c.container(ctx); err != nil {
		return err
	}
	c.turn <- struct{}{}
	return nil
}

// Invoke runs the function once with an event and returns what it answered. The invocation ends at the function's time
// limit or when ctx ends, whichever is first. After an error the process is gone, but for ErrFunction.
func (c *containers) Invoke(ctx context.Context, event json.RawMessage) (json.RawMessage, error) {
	return c.invoke(ctx, newID(), event)
}

func (c *containers) invoke(ctx context.Context, id string, event json.RawMessage) (json.RawMessage, error) {
	if err := c.take(ctx); err != nil {
		return nil, err
	}
	defer c.giveBack()
	p, err := c.container(ctx)
	if err != nil {
		return nil, c.fault(err)
	}
	if err := p.resume(); err != nil {
		return nil, c.throwAway(p, err)
	}
	result, err := p.invoke(ctx, id, event)
	switch {
	case errors.Is(err, ErrFunction):
		return nil, c.fault(err)
	case err != nil:
		return nil, c.throwAway(p, err)
	}
	return result, nil
}

func (c *containers) take(ctx context.Context) error {
	select {
	case <-c.turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		c.giveBack()
		return ErrClosed
	}
	return nil
}

func (c *containers) giveBack() { c.turn <- struct{}{} }

// container returns the process, or a fresh one when the last was thrown away. The caller has the turn.
func (c *containers) container(ctx context.Context) (container, error) {
	if p := c.current(); p != nil {
		return p, nil
	}
	p, err := c.launch(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w; its output: %q", ErrStart, err, c.log.tail(500))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = p
	c.starts++
	return p, nil
}

func (c *containers) current() container {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept
}

func (c *containers) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = nil
}

func (c *containers) throwAway(p container, err error) error {
	p.kill()
	c.forget()
	return c.fault(err)
}

func (c *containers) fault(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, err)
	return err
}

// Pause freezes the process as the platform does when it is idle. Invoke thaws it by itself, as the platform does.
func (c *containers) Pause() error {
	if p := c.current(); p != nil {
		return p.pause()
	}
	return ErrExited
}

// Resume thaws the process.
func (c *containers) Resume() error {
	if p := c.current(); p != nil {
		return p.resume()
	}
	return ErrExited
}

// PID is the process id, or 0 when the process was thrown away.
func (c *containers) PID() int {
	if p := c.current(); p != nil {
		return p.pid()
	}
	return 0
}

// Ready is how long the process took from its start until it could be invoked; 0 when it was thrown away.
func (c *containers) Ready() time.Duration {
	if p := c.current(); p != nil {
		return p.readyAfter()
	}
	return 0
}

// Starts counts the processes started so far: cold starts.
func (c *containers) Starts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.starts
}

// Faults lists why invocations had no result, over HTTP too, where clients see the same answer for all of them.
func (c *containers) Faults() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]error(nil), c.faults...)
}

// Logs is all that was written to stdout and stderr, without what is the protocol's.
func (c *containers) Logs() string { return c.log.String() }

// refuse refuses what has not begun.
func (c *containers) refuse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// Close refuses what has not begun, waits for the invocation in hand and ends the process as the platform does. In any
// case nothing is left running. Closing twice is fine.
func (c *containers) Close() error {
	c.refuse()
	<-c.turn
	defer c.giveBack()
	p := c.current()
	if p == nil {
		return nil
	}
	c.forget()
	return p.end()
}
