// Package deploy stands in for the platforms that Fallback is deployed to, so that what is uploaded can be tried
// without an account.
//
// A Function is DigitalOcean's side of one deployed function: it starts the built `exec` as their runtime does, speaks
// ActionLoop with it, and answers HTTP as their web gateway does. CheckProject reads project.yml and packages/ as their
// deployer does.
//
// What comes in is a built program; what goes out are the answers a client of the platform would see. The promise is
// that whatever the platform refuses is refused here too, with the platform's own words. The rules come from Apache
// OpenWhisk (WebActions.scala, ActivationResult.scala, actions-actionloop.md and the akka-http types they use) and from
// DigitalOcean's documentation; where the two may differ, a comment says so.
package deploy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Why an invocation has no result. In each case the process was killed and reaped, as the platform throws the container
// away; the next invocation starts a fresh one. Web clients get a 400 for all of them.
var (
	// ErrStart: the process did not say that it is ready.
	ErrStart = errors.New("the function did not start")
	// ErrExited: the process ended while it should have been waiting or working.
	ErrExited = errors.New("the function exited")
	// ErrTimeout: the invocation ran past limits.timeout.
	ErrTimeout = errors.New("the function ran past its time limit")
	// ErrProtocol: something on fd 3, stdout or stderr was not as ActionLoop wants it.
	ErrProtocol = errors.New("the function broke the ActionLoop protocol")
	// ErrClosed: the Function was closed by its owner.
	ErrClosed = errors.New("the function is closed")
)

// Who the function is on the platform.
const (
	namespace = "fn-00000000-0000-4000-8000-000000000000"
	apiHost   = "https://faas.example.com"
	version   = "0.0.1"
)

// Config says what project.yml says about a function, and how patient the platform is.
type Config struct {
	Exec       string            // the built program
	Env        map[string]string // `environment:` of the function, all that it finds besides HOME, PATH and __OW_*
	Parameters map[string]any    // `parameters:`: they arrive in the event, beside `http`
	Name       string            // package/function; fallback/enqueue if empty
	Web        string            // `web:`, "raw" (also if empty) or "false": then HTTP finds nothing
	Timeout    time.Duration     // limits.timeout; 15 s if zero
	Blocking   time.Duration     // how long a web client is kept waiting before it gets a 202; the platform's 30 s if zero
	Init       time.Duration     // the bound for being ready; 10 s if zero
	Grace      time.Duration     // the bound for the sentinels and for the exit; 5 s if zero
	Logs       io.Writer         // gets each line of stdout and stderr as it comes; may be nil
}

// Function is one deployed function. It runs one invocation at a time in one process, which is kept between them.
// The platform starts more processes for concurrent requests; here they wait for their turn.
type Function struct {
	config Config
	log    *logbook

	turn chan struct{} // holds one token; who took it may use and replace the process

	mu      sync.Mutex // guards what follows
	process *process   // nil after it was thrown away
	starts  int
	faults  []error
	closed  bool

	unanswered sync.WaitGroup // web invocations, which may outlive their clients
}

// Start starts the function's process and returns when it has said that it is ready, within Config.Init.
func Start(ctx context.Context, config Config) (*Function, error) {
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	f := &Function{config: config, log: &logbook{copy: config.Logs}, turn: make(chan struct{}, 1)}
	if _, err := f.container(ctx); err != nil {
		return nil, err
	}
	f.turn <- struct{}{}
	return f, nil
}

func (c Config) complete() (Config, error) {
	exec, err := filepath.Abs(c.Exec)
	if err != nil {
		return c, err
	}
	switch c.Web {
	case "", "raw":
		c.Web = "raw"
	case "false":
	default:
		return c, fmt.Errorf("web: %s is not modelled, use raw or false", c.Web)
	}
	c.Exec = exec
	c.Env = maps.Clone(c.Env)
	c.Name = or(c.Name, "fallback/enqueue")
	c.Timeout = or(c.Timeout, 15*time.Second)
	c.Blocking = or(c.Blocking, 30*time.Second)
	c.Init = or(c.Init, 10*time.Second)
	c.Grace = or(c.Grace, 5*time.Second)
	return c, nil
}

func or[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// Invoke runs the function once with an event, a JSON object, and returns the JSON object that it answered; an answer with an "error"
// key is a result like any other, the gateway is where it matters. The invocation ends at Config.Timeout or when ctx
// ends, whichever is first. After an error the process is gone.
//
// A line too many on fd 3 or a sentinel too many is seen by this invocation, by a later one, or by Close.
func (f *Function) Invoke(ctx context.Context, event json.RawMessage) (json.RawMessage, error) {
	return f.invoke(ctx, newID(), event)
}

func (f *Function) invoke(ctx context.Context, activation string, event json.RawMessage) (json.RawMessage, error) {
	if err := f.take(ctx); err != nil {
		return nil, err
	}
	defer f.giveBack()
	p, err := f.container(ctx)
	if err != nil {
		return nil, f.fault(err)
	}
	if err := p.resume(); err != nil {
		return nil, f.throwAway(p, err)
	}
	result, err := p.exchange(ctx, f.run(activation, event))
	if err != nil {
		return nil, f.throwAway(p, err)
	}
	return result, nil
}

func (f *Function) take(ctx context.Context) error {
	select {
	case <-f.turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		f.turn <- struct{}{}
		return ErrClosed
	}
	return nil
}

func (f *Function) giveBack() { f.turn <- struct{}{} }

// container returns the process, or a fresh one when the last was thrown away. The caller has the turn.
func (f *Function) container(ctx context.Context) (*process, error) {
	if p := f.current(); p != nil {
		return p, nil
	}
	p, err := startProcess(ctx, f.config, f.log)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.process = p
	f.starts++
	return p, nil
}

func (f *Function) current() *process {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.process
}

func (f *Function) throwAway(p *process, err error) error {
	p.kill()
	f.mu.Lock()
	f.process = nil
	f.mu.Unlock()
	return f.fault(err)
}

func (f *Function) fault(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, err)
	return err
}

// run is the body of the platform's POST /run.
func (f *Function) run(activation string, event json.RawMessage) any {
	deadline := time.Now().Add(f.config.Timeout).UnixMilli()
	return map[string]any{
		"value":          event,
		"activation_id":  activation,
		"transaction_id": newID(),
		"deadline":       strconv.FormatInt(deadline, 10),
		"namespace":      namespace,
		"action_name":    "/" + namespace + "/" + f.config.Name,
		"action_version": version,
		"api_host":       apiHost,
		"api_key":        "",
	}
}

// Pause freezes the process as the platform does when it is idle. Invoke thaws it by itself, as the platform does.
func (f *Function) Pause() error {
	if p := f.current(); p != nil {
		return p.pause()
	}
	return ErrExited
}

// Resume thaws the process.
func (f *Function) Resume() error {
	if p := f.current(); p != nil {
		return p.resume()
	}
	return ErrExited
}

// PID is the process id, or 0 when the process was thrown away.
func (f *Function) PID() int {
	if p := f.current(); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

// Ready is how long the process took from its start to the ack that it is ready; 0 when it was thrown away.
func (f *Function) Ready() time.Duration {
	if p := f.current(); p != nil {
		return p.ready
	}
	return 0
}

// Starts counts the processes started so far: cold starts.
func (f *Function) Starts() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.starts
}

// Faults lists why invocations had no result, over HTTP too, where clients see the same 400 for all of them.
func (f *Function) Faults() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]error(nil), f.faults...)
}

// Logs is all that was written to stdout and stderr, without the sentinels.
func (f *Function) Logs() string { return f.log.String() }

// Close refuses what has not begun, waits for the invocation in hand, ends stdin and returns nil if the process then
// exits with 0 within Config.Grace, having left nothing behind on fd 3 and no sentinel too many. Otherwise it is killed.
// A paused process is killed without blame: the platform gives it no chance to say goodbye either. In any case nothing
// is left running. Closing twice is fine.
func (f *Function) Close() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()

	f.unanswered.Wait()
	<-f.turn
	defer f.giveBack()
	p := f.current()
	if p == nil {
		return nil
	}
	f.mu.Lock()
	f.process = nil
	f.mu.Unlock()
	return p.close()
}

// newID makes an id in the platform's form: 32 hexadecimal digits.
func newID() string {
	var id [16]byte
	rand.Read(id[:])
	return hex.EncodeToString(id[:])
}
