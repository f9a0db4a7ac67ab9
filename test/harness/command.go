package harness

import (
	"context"
	"fmt"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Run runs a command in the repository's root, for as long as within at most, and returns what it prints. An error
// holds that, too.
func Run(within time.Duration, command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = Root()
	cmd.WaitDelay = 5 * time.Second // what it has started may hold on to its output
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("it was still there after %s", within)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, out)
	}
	return string(out), err
}

var builds sync.Map // of source to func() error

// Build makes one of the project's programs as it is shipped, once for the test's process, and says where it is. The
// source is its package: "./functions/cmd/fallback".
func Build(source string) (program string, err error) {
	program = filepath.Join(Scratch(), path.Base(source))
	once, _ := builds.LoadOrStore(source, sync.OnceValue(func() error {
		_, err := Run(Patience, "env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program,
			source)
		return err
	}))
	return program, once.(func() error)()
}

// Exec runs a command in the container and returns what it prints.
func (b *Broker) Exec(command ...string) (string, error) {
	return Run(Patience, append([]string{"docker", "exec", b.ID()}, command...)...)
}

// Eval makes the broker's node evaluate Erlang expressions, separated by commas. rabbitmqctl does the same, and takes
// more than a second of two cores to start; an image may have nothing else.
func (b *Broker) Eval(expressions string) error {
	const script = `command -v erl_call >/dev/null || exec rabbitmqctl -q eval "$1."
		printf '%s.\n' "$1" | erl_call -sname rabbit@rabbitmq -c "$(cat /var/lib/rabbitmq/.erlang.cookie)" -e | tee /dev/stderr | grep -q '^{ok,'`
	_, err := b.Exec("sh", "-c", script, "sh", expressions)
	return err
}

// Docker runs a docker command on the container: "stop", "start", "kill", "unpause".
func (b *Broker) Docker(t testing.TB, command ...string) {
	t.Helper()
	if _, err := Run(Patience, append(append([]string{"docker"}, command...), b.ID())...); err != nil {
		t.Fatal(err)
	}
}

// Pause freezes the container.
func (b *Broker) Pause() error { return Pause(b.ID()) }

// Pause freezes a container. Beside processes that come and go all the time, the kernel may not be able to at first.
func Pause(container string) (err error) {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if _, err = Run(Patience, "docker", "pause", container); err == nil {
			return nil
		}
	}
	return err
}
