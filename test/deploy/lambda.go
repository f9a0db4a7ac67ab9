package deploy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"fallback/test/harness"
)

// Why an invocation of a Lambda has no result, beside ErrStart, ErrExited, ErrTimeout and ErrClosed. Clients of a
// Function URL get a 502 for all of them. After ErrFunction the process goes on; after the others it is gone.
var (
	// ErrFunction: the function reported an error instead of a result.
	ErrFunction = errors.New("the function reported an error")
	// ErrRuntime: the process did not use the Runtime API as it should.
	ErrRuntime = errors.New("the function broke the Runtime API's protocol")
)

// lambdaLimit is the platform's bound for an event and for a result, 6 MB.
const lambdaLimit = 6 << 20

// LambdaConfig says what a template says about a function, and how patient the platform is.
type LambdaConfig struct {
	Bootstrap string            // the built program
	Env       map[string]string // the function's, all that it finds besides the platform's own
	Stage     string            // of the HTTP API in front of it; "" is a Function URL
	Timeout   time.Duration     // of one invocation; 15 s if zero
	// by how much later the limit strikes than the function is told, for a slow machine; the platform's is 0
	Extra time.Duration
	Init  time.Duration // the bound for being ready; the platform's 10 s if zero
	// between SIGTERM and SIGKILL; 30 s if zero (the platform: 0.5 s, and SIGKILL alone without an extension)
	Grace time.Duration
	Logs  io.Writer // gets each line of stdout and stderr as it comes; may be nil
}

// Lambda is one deployed function: AWS Lambda's side of it. It starts the built `bootstrap` as Lambda does and serves
// it the Runtime API (2018-06-01) and as much of the Extensions API (2020-01-01) as a process needs that wants to hear
// of its end.
//
// The rules come from AWS's documentation of both APIs and of Function URLs, as it was in November 2026, and from the
// client in aws-lambda-go 1.55. AWS's own Runtime Interface Emulator, in the image
// public.ecr.aws/lambda/provided:al2023, runs the same bootstrap to compare with.
type Lambda struct {
	containers
	config LambdaConfig
}

// StartLambda starts the function's process and returns when it asks for its first event, within LambdaConfig.Init.
func StartLambda(ctx context.Context, config LambdaConfig) (*Lambda, error) {
	program, err := filepath.Abs(config.Bootstrap)
	if err != nil {
		return nil, err
	}
	config.Bootstrap = program
	config.Env = maps.Clone(config.Env)
	config.Timeout = cmp.Or(config.Timeout, 15*time.Second)
	config.Init = cmp.Or(config.Init, 10*time.Second)
	config.Grace = cmp.Or(config.Grace, 30*time.Second)
	l := &Lambda{config: config}
	l.log = &logbook{copy: config.Logs}
	l.launch = func(ctx context.Context) (container, error) { return startSandbox(ctx, config, l.log) }
	if err := l.begin(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// sandbox is one process with a Runtime API of its own.
type sandbox struct {
	child
	config LambdaConfig
	api    http.Server
	events chan *invocation // to the process, when it asks for the next one

	mu         sync.Mutex    // guards the rest
	hand       *invocation   // what the process has and has not answered
	extension  bool          // it has registered one
	waits      [2]bool       // for its first event: the runtime, the extension
	ready      chan struct{} // closed when both do
	initFailed error         // what it reported
}

// invocation is one event on its way.
type invocation struct {
	id       string
	event    []byte
	deadline time.Time
	result   chan outcome // holds one
}

type outcome struct {
	result []byte
	err    error
}

func startSandbox(ctx context.Context, config LambdaConfig, log *logbook) (*sandbox, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &sandbox{
		child: child{gone: make(chan struct{})}, config: config,
		events: make(chan *invocation), ready: make(chan struct{}),
	}
	s.api.Handler = s.routes()
	go s.api.Serve(listener)
	begin := time.Now()
	if err := s.start(listener.Addr().String(), log); err != nil {
		s.api.Close()
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, config.Init, fmt.Errorf("not ready within %v", config.Init))
	defer cancel()
	select {
	case <-s.ready:
		s.took = time.Since(begin)
		return s, nil
	case <-s.gone:
		s.mu.Lock()
		err = errors.Join(s.initFailed, s.ended())
		s.mu.Unlock()
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.kill()
	return nil, err
}

func (s *sandbox) start(api string, log *logbook) error {
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer write.Close()
	s.cmd = exec.Command(s.config.Bootstrap)
	harness.EndWithUs(s.cmd)
	s.cmd.Dir = "/" // a function that needs the folder it was built in fails here as it would there
	s.cmd.Env = environ(sandboxEnv(api), s.config.Env)
	s.cmd.Stdout, s.cmd.Stderr = write, write
	if err := s.cmd.Start(); err != nil {
		read.Close()
		return err
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		eachLine(read, log.add)
	}()
	go func() {
		s.reap(drained, func() { read.Close() }, s.config.Grace)
		read.Close()
		close(s.gone)
	}()
	return nil
}

// sandboxEnv is what the platform gives a function beside its own; there is no HOME.
func sandboxEnv(api string) []string {
	return []string{
		"AWS_LAMBDA_RUNTIME_API=" + api,
		"AWS_LAMBDA_FUNCTION_NAME=fallback", "AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256",
		"AWS_LAMBDA_INITIALIZATION_TYPE=on-demand", "AWS_REGION=eu-central-1", "AWS_DEFAULT_REGION=eu-central-1",
		"LAMBDA_TASK_ROOT=/var/task", "LAMBDA_RUNTIME_DIR=/var/runtime", "_HANDLER=bootstrap",
		"PATH=/usr/local/bin:/usr/bin/:/bin:/opt/bin", "LANG=en_US.UTF-8", "TZ=:UTC",
	}
}

// invoke hands the process one event and waits for its answer. An event need not be JSON here, which the platform sees
// to.
func (s *sandbox) invoke(ctx context.Context, id string, event json.RawMessage) (json.RawMessage, error) {
	in := &invocation{id: id, event: event, deadline: time.Now().Add(s.config.Timeout), result: make(chan outcome, 1)}
	ctx, cancel := context.WithDeadlineCause(ctx, in.deadline.Add(s.config.Extra),
		fmt.Errorf("%w of %v", ErrTimeout, s.config.Timeout))
	defer cancel()
	select {
	case s.events <- in:
	case <-s.gone:
		return nil, s.ended()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case out := <-in.result:
		return out.result, out.err
	case <-s.gone:
		return nil, s.ended()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// end thaws a frozen process and sends it SIGTERM if it has registered an extension, otherwise SIGKILL. It returns nil
// if a process that was told then exits with 0 within LambdaConfig.Grace.
func (s *sandbox) end() error {
	defer s.kill()
	s.mu.Lock()
	told := s.extension
	s.mu.Unlock()
	select {
	case <-s.gone:
		return s.ended() // by itself, with nothing to do
	default:
	}
	if !told {
		return nil
	}
	if err := errors.Join(s.resume(), s.cmd.Process.Signal(syscall.SIGTERM)); err != nil {
		return err
	}
	select {
	case <-s.gone:
	case <-time.After(s.config.Grace):
		return fmt.Errorf("%w: still running %v after SIGTERM", ErrRuntime, s.config.Grace)
	}
	if s.exit != nil {
		return s.ended()
	}
	return nil
}

func (s *sandbox) kill() {
	s.child.kill()
	s.api.Close()
}

func (s *sandbox) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", s.next)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/response", func(w http.ResponseWriter, r *http.Request) {
		s.answered(w, r, func(body []byte) outcome {
			if len(body) > lambdaLimit {
				return outcome{err: fmt.Errorf("%w: the answer has %d bytes, %d are allowed", ErrFunction, len(body),
					lambdaLimit)}
			}
			return outcome{result: body}
		})
	})
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/error", func(w http.ResponseWriter, r *http.Request) {
		s.answered(w, r, func(body []byte) outcome { return outcome{err: fmt.Errorf("%w: %.500s", ErrFunction, body)} })
	})
	mux.HandleFunc("POST /2018-06-01/runtime/init/error", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 64<<10))
		s.mu.Lock()
		s.initFailed = fmt.Errorf("%w: %.500s", ErrFunction, body)
		s.mu.Unlock()
		w.WriteHeader(http.StatusAccepted)
	})
	mux.HandleFunc("POST /2020-01-01/extension/register", s.register)
	mux.HandleFunc("GET /2020-01-01/extension/event/next", func(_ http.ResponseWriter, r *http.Request) {
		s.first(1)
		<-r.Context().Done() // it has registered for no event: none comes
	})
	return mux
}

// next is the process asking for an event; it waits until there is one.
func (s *sandbox) next(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	unanswered := s.hand
	s.mu.Unlock()
	if unanswered != nil {
		s.settle(unanswered.id, outcome{err: fmt.Errorf("%w: it asked for the next event without an answer to the last",
			ErrRuntime)})
	}
	s.first(0)
	var in *invocation
	select {
	case in = <-s.events:
	case <-r.Context().Done():
		return
	}
	s.mu.Lock()
	s.hand = in
	s.mu.Unlock()
	h := w.Header()
	h.Set("Lambda-Runtime-Aws-Request-Id", in.id)
	h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(in.deadline.UnixMilli(), 10))
	h.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-central-1:123456789012:function:fallback")
	h.Set("Lambda-Runtime-Trace-Id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=0")
	h.Set("Content-Type", "application/json")
	_, _ = w.Write(in.event)
}

// answered takes the process's answer to what it has in hand.
func (s *sandbox) answered(w http.ResponseWriter, r *http.Request, read func(body []byte) outcome) {
	body, err := io.ReadAll(io.LimitReader(r.Body, lambdaLimit+1))
	if err != nil {
		return // it broke off: the process is gone, or the invocation times out
	}
	if kind := r.Trailer.Get("Lambda-Runtime-Function-Error-Type"); kind != "" {
		read = func([]byte) outcome { return outcome{err: fmt.Errorf("%w: %s", ErrFunction, kind)} }
	}
	if !s.settle(r.PathValue("id"), read(body)) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}`)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{"status":"OK"}`)
}

// settle gives an outcome to whoever waits for it; there is none if the id is not that of what is in hand.
func (s *sandbox) settle(id string, out outcome) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hand == nil || s.hand.id != id {
		return false
	}
	s.hand.result <- out
	s.hand = nil
	return true
}

// register takes an extension of the process's own, which may ask for INVOKE only, and only before the first event.
func (s *sandbox) register(w http.ResponseWriter, r *http.Request) {
	var asked struct{ Events []string }
	err := json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(&asked)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil || r.Header.Get("Lambda-Extension-Name") == "":
		w.WriteHeader(http.StatusBadRequest)
	case len(asked.Events) > 0 || s.waits[0]:
		w.WriteHeader(http.StatusForbidden)
	default:
		s.extension = true
		w.Header().Set("Lambda-Extension-Identifier", newID())
		_, _ = io.WriteString(w, `{"functionName":"fallback","functionVersion":"$LATEST","handler":"bootstrap"}`)
	}
}

// first notes who waits for a first event: the process is ready when the runtime does, and the extension, if it has
// one.
func (s *sandbox) first(who int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits[who] = true
	if !s.waits[0] || s.extension && !s.waits[1] {
		return
	}
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
}
