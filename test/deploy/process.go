package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"fallback/test/harness"
)

// process is one running `exec`.
type process struct {
	child
	config Config
	stdin  *os.File
	out    *output
	rounds int // invocations answered so far
}

// startProcess starts the program with nothing but what the platform gives it, and waits for its ack.
func startProcess(ctx context.Context, config Config, log *logbook) (*process, error) {
	p := &process{config: config, child: child{gone: make(chan struct{})}}
	started := time.Now()
	if err := p.start(log); err != nil {
		return nil, err
	}
	if err := p.ack(ctx); err != nil {
		p.kill()
		return nil, err
	}
	p.took = time.Since(started)
	return p, nil
}

func (p *process) start(log *logbook) error {
	ours, theirs, err := newPipes()
	if err != nil {
		return err
	}
	defer closeAll(theirs)
	cmd := exec.Command(p.config.Exec)
	harness.EndWithUs(cmd)
	cmd.Dir = "/" // a function that needs the folder it was built in fails here as it would there
	cmd.Env = environ(processEnv, p.config.Env)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs[0], theirs[1], theirs[2]
	cmd.ExtraFiles = theirs[3:] // fd 3
	if err := cmd.Start(); err != nil {
		closeAll(ours)
		return err
	}
	p.cmd, p.stdin = cmd, ours[0]
	p.out = readOutput(ours[1], ours[2], ours[3], log)
	go func() {
		p.reap(p.out.drained, p.out.cut, p.config.Grace)
		p.stdin.Close()
		close(p.gone)
	}()
	return nil
}

// ack waits for {"ok":true} on fd 3.
func (p *process) ack(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.config.Init, fmt.Errorf("no ack within %v", p.config.Init))
	defer cancel()
	line, err := p.line(ctx)
	if err != nil {
		return err
	}
	var ack struct {
		OK bool `json:"ok"`
	}
	if err := json.Unmarshal(line, &ack); err != nil || !ack.OK {
		return fmt.Errorf(`the ack is %.100q, want {"ok":true}`, line)
	}
	return nil
}

// invoke is one invocation: one line in, one line out, one sentinel on each stream of logs. A line too many on fd 3 or
// a sentinel too many is seen by this invocation, by a later one, or by end.
func (p *process) invoke(ctx context.Context, activation string, event json.RawMessage) (json.RawMessage, error) {
	if err := p.idle(); err != nil {
		return nil, err
	}
	line, err := marshal(p.config.run(activation, event))
	if err != nil {
		return nil, fmt.Errorf("the event: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.config.Timeout+p.config.Extra,
		fmt.Errorf("%w of %v", ErrTimeout, p.config.Timeout))
	defer cancel()
	if err := p.send(ctx, line); err != nil {
		return nil, err
	}
	answer, err := p.line(ctx)
	if err != nil {
		return nil, err
	}
	return p.settle(ctx, answer)
}

// run is the body of the platform's POST /run.
func (c Config) run(activation string, event json.RawMessage) any {
	deadline := time.Now().Add(c.Timeout).UnixMilli()
	return map[string]any{
		"value":          event,
		"activation_id":  activation,
		"transaction_id": newID(),
		"deadline":       strconv.FormatInt(deadline, 10),
		"namespace":      namespace,
		"action_name":    "/" + namespace + "/" + c.Name,
		"action_version": version,
		"api_host":       apiHost,
		"api_key":        "",
	}
}

// idle finds what came when nothing was asked for, and an exit.
func (p *process) idle() error {
	if err := p.out.excess(p.rounds); err != nil {
		return err
	}
	select {
	case <-p.gone:
		return p.ended()
	default:
		return nil
	}
}

func (p *process) send(ctx context.Context, line []byte) error {
	stop := context.AfterFunc(ctx, func() { p.stdin.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := p.stdin.Write(append(line, '\n'))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return context.Cause(ctx)
	}
	select {
	case <-p.gone:
		return p.ended()
	case <-time.After(p.config.Grace):
		return fmt.Errorf("%w: it closed its stdin: %w", ErrProtocol, err)
	}
}

// line waits for the next line on fd 3.
func (p *process) line(ctx context.Context) (line []byte, err error) {
	err = p.await(ctx, func() bool {
		line = p.out.take()
		return line != nil
	})
	return line, err
}

// settle waits for the sentinels. Where logs are forwarded the platform waits for them without a bound, so one that is
// missing would hang the function for ever; here it is a fault within Config.Grace.
func (p *process) settle(ctx context.Context, answer []byte) (json.RawMessage, error) {
	p.rounds++
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), p.config.Grace, ErrProtocol)
	defer cancel()
	err := p.await(ctx, func() bool { return p.out.missing(p.rounds) == "" })
	if errors.Is(err, ErrProtocol) {
		return nil, fmt.Errorf("%w: no %s on %s within %v of the answer", ErrProtocol, sentinel,
			p.out.missing(p.rounds), p.config.Grace)
	}
	if err != nil {
		return nil, err
	}
	if err := p.out.excess(p.rounds); err != nil {
		return nil, err
	}
	return object(answer)
}

func object(line []byte) (json.RawMessage, error) {
	line = bytes.TrimSpace(line)
	if !json.Valid(line) || line[0] != '{' {
		return nil, fmt.Errorf("%w: fd 3 has %.100q, want a JSON object", ErrProtocol, line)
	}
	return line, nil
}

// await returns nil when done says so; it asks at each change of the output.
func (p *process) await(ctx context.Context, done func() bool) error {
	for !done() {
		select {
		case <-p.out.changed:
		case <-p.gone:
			if done() {
				return nil
			}
			return p.ended()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (p *process) end() error {
	if p.frozen() {
		p.kill()
		return nil
	}
	if err := p.idle(); err != nil {
		p.kill()
		return err
	}
	p.stdin.Close()
	select {
	case <-p.gone:
	case <-time.After(p.config.Grace):
		p.kill()
		return fmt.Errorf("%w: still running %v after the end of stdin", ErrProtocol, p.config.Grace)
	}
	if p.exit != nil {
		return p.ended()
	}
	return p.out.excess(p.rounds)
}

// processEnv is what the runtime's proxy gives a function beside its own: not one variable of the proxy's comes
// through.
var processEnv = []string{
	"HOME=/root",
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"__OW_PROXY_VERSION=test/deploy",
	"__OW_API_HOST=" + apiHost,
}

// newPipes makes the pipes for descriptors 0 to 3: our ends of them, and the ones that the process gets.
func newPipes() (ours, theirs []*os.File, err error) {
	for fd := range 4 {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(ours)
			closeAll(theirs)
			return nil, nil, err
		}
		if fd == 0 {
			r, w = w, r
		}
		ours, theirs = append(ours, r), append(theirs, w)
	}
	return ours, theirs, nil
}

func closeAll(files []*os.File) {
	for _, file := range files {
		file.Close()
	}
}
