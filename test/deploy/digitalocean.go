// Package deploy stands in for the platforms that Fallback is deployed to, so that what is uploaded can be tried
// without an account.
//
// A Function is DigitalOcean's side of one deployed function: it starts the built `exec` as their runtime does, speaks
// ActionLoop with it, and answers HTTP as their web gateway does. CheckProject reads project.yml and packages/ as their
// deployer does. A Lambda is AWS's side of one deployed function, with its Function URL.
//
// What comes in is a built program; what goes out are the answers a client of the platform would see. The promise is
// that whatever the platform refuses is refused here too, with the platform's own words. The rules come from Apache
// OpenWhisk (apache/openwhisk 1fae641: WebActions.scala, ActivationResult.scala, actions-actionloop.md and the
// akka-http types they use) and from DigitalOcean's documentation; where the two may differ, a comment says so. They
// were read and not compared with the platform, which needs an account: `doctl serverless functions invoke
// fallback/enqueue --full` and curl show the real one's answers.
package deploy

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
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
	// by how much later the limit strikes than the function is told, for a slow machine; the platform's is 0
	Extra time.Duration
	// how long a web client is kept waiting before it gets a 202; the platform's 30 s if zero
	Blocking time.Duration
	Init     time.Duration // the bound for being ready; 10 s if zero
	Grace    time.Duration // the bound for the sentinels and for the exit; 30 s if zero
	Logs     io.Writer     // gets each line of stdout and stderr as it comes; may be nil
}

// Function is one deployed function: DigitalOcean's side of it. What it does as a Lambda does, invoking, freezing and
// counting, is in containers.
type Function struct {
	containers
	config     Config
	unanswered sync.WaitGroup // web invocations, which may outlive their clients
}

// Start starts the function's process and returns when it has said that it is ready, within Config.Init.
func Start(ctx context.Context, config Config) (*Function, error) {
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	f := &Function{config: config}
	f.log = &logbook{copy: config.Logs}
	f.launch = func(ctx context.Context) (container, error) { return startProcess(ctx, config, f.log) }
	if err := f.begin(ctx); err != nil {
		return nil, err
	}
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
	c.Name = cmp.Or(c.Name, "fallback/enqueue")
	c.Timeout = cmp.Or(c.Timeout, 15*time.Second)
	c.Blocking = cmp.Or(c.Blocking, 30*time.Second)
	c.Init = cmp.Or(c.Init, 10*time.Second)
	c.Grace = cmp.Or(c.Grace, 30*time.Second)
	return c, nil
}

// Close waits for the clients' invocations, too, before it ends stdin. It returns nil if the process then exits with 0
// within Config.Grace, having left nothing behind on fd 3 and no sentinel too many; otherwise it is killed. A paused
// process is killed without blame: the platform gives it no chance to say goodbye either.
func (f *Function) Close() error {
	f.refuse()
	f.unanswered.Wait()
	return f.containers.Close()
}

// newID makes an id in the platform's form: 32 hexadecimal digits.
func newID() string {
	var id [16]byte
	rand.Read(id[:])
	return hex.EncodeToString(id[:])
}
