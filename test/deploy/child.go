package deploy

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// child is a process of a platform's: what is the same on all of them.
type child struct {
	cmd  *exec.Cmd
	gone chan struct{} // closed when the process is reaped and all its output is read
	exit error         // how it ended; read after gone
	took time.Duration // until it was ready

	mu     sync.Mutex // guards paused
	paused bool
}

// reap waits for the end of the process, then for the end of its output. Output that does not end, because something
// the process started holds on to it, is cut off.
func (c *child) reap(drained <-chan struct{}, cut func(), grace time.Duration) {
	c.exit = c.cmd.Wait()
	select {
	case <-drained:
	case <-time.After(grace):
		cut()
		<-drained
	}
}

// ended tells how the process ended. Only after gone.
func (c *child) ended() error {
	if c.exit == nil {
		return fmt.Errorf("%w: exit status 0", ErrExited)
	}
	return fmt.Errorf("%w: %w", ErrExited, c.exit)
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) readyAfter() time.Duration { return c.took }

func (c *child) pause() error { return c.signal(syscall.SIGSTOP, true) }

func (c *child) resume() error { return c.signal(syscall.SIGCONT, false) }

func (c *child) signal(sig os.Signal, paused bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = paused
	err := c.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil // the exchange will say how it ended
	}
	return err
}

func (c *child) frozen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.paused
}

func (c *child) kill() {
	c.cmd.Process.Kill()
	<-c.gone
}

// environ is a platform's own variables and the function's. Not one of this process comes through.
func environ(own []string, env map[string]string) []string {
	vars := slices.Clone(own)
	for name, value := range env {
		vars = append(vars, name+"="+strings.ReplaceAll(value, "\x00", ""))
	}
	return vars
}
