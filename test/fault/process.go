package fault

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"fallback/test/harness"
)

// exitTimeout is how long a process may take to end after SIGTERM: what Docker waits before it kills.
const exitTimeout = 10 * time.Second

// process is `fallback serve` or `fallback drain`. It can be ended and started again, at the same address.
type process struct {
	program string // empty for the shipped one
	command string
	addr    string
	env     map[string]string
	log     *harness.Log

	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has been reaped
	dumped int           // where the dump of its goroutines begins in the log; 0 while there is none
}

// start starts the process and does not wait until it listens.
func (s *process) start() error {
	program := s.program
	if program == "" {
		var err error
		if program, err = harness.Build("./functions/cmd/fallback"); err != nil {
			return err
		}
	}
	cmd := exec.Command(program, s.command)
	for name, value := range s.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Env = append(cmd.Env, "FALLBACK_ADDR="+s.addr, "FALLBACK_DRAIN_ADDR="+s.addr)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	harness.EndWithUs(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	s.cmd, s.exited = cmd, exited
	return nil
}

// waitReady waits until /readyz says so.
func (s *process) waitReady(ctx context.Context) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	return poll(ctx, "fallback "+s.command+" to be ready", func() (bool, error) {
		if err := s.ended(); err != nil {
			return false, err
		}
		response, err := client.Get("http://" + s.addr + "/readyz")
		if err != nil {
			return false, nil
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK, nil
	})
}

// ended is an error when the process runs no more.
func (s *process) ended() error {
	select {
	case <-s.exited:
		return fmt.Errorf("fallback %s ended: %s", s.command, s.cmd.ProcessState)
	default:
		return nil
	}
}

// kill ends the process with SIGKILL, if it runs.
func (s *process) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
}

// quit ends the process with SIGQUIT, which has it dump its goroutines. Twice is fine.
func (s *process) quit() (log, dump string) {
	if s.cmd != nil && s.dumped == 0 {
		s.dumped = len(s.log.String())
		_ = s.cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-s.exited:
		case <-time.After(harness.Patience):
			s.kill()
		}
	}
	all := s.log.String()
	return all[:s.dumped], all[s.dumped:]
}

// goroutines counts those in a dump. Number 0 is the scheduler's, and seen by chance.
func goroutines(dump string) int {
	n := 0
	for line := range strings.Lines(dump) {
		if strings.HasPrefix(line, "goroutine ") && !strings.HasPrefix(line, "goroutine 0 ") {
			n++
		}
	}
	return n
}

// whereabouts sums up a dump of goroutines: how many are where, in the server's own code and its AMQP client.
func whereabouts(dump string) string {
	counts := map[string]int{}
	for stack := range strings.SplitSeq(dump, "\n\n") {
		var frames []string
		for line := range strings.Lines(stack) {
			if _, state, ok := strings.Cut(line, "["); ok && strings.HasPrefix(line, "goroutine ") {
				state, _, _ = strings.Cut(state, "]")
				frames = append(frames, state+":")
				continue
			}
			ours := strings.HasPrefix(line, "fallback/functions") || strings.HasPrefix(line, "github.com/rabbitmq")
			if end := strings.LastIndex(line, "("); ours && end > 0 {
				frames = append(frames, line[strings.LastIndex(line[:end], "/")+1:end])
			}
		}
		if len(frames) > 1 {
			counts[strings.Join(frames, " ")]++
		}
	}
	var lines []string
	for where, n := range counts {
		lines = append(lines, fmt.Sprintf("%4d %s", n, where))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// terminate sends SIGTERM and waits for the end. An error says that it was late or not with code 0.
func (s *process) terminate() error {
	begin := time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-s.exited:
	case <-time.After(allowed(exitTimeout)):
		s.kill()
		return fmt.Errorf("it was still there %s after SIGTERM", allowed(exitTimeout))
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("SIGTERM: exit code %d after %s", code, time.Since(begin))
	}
	return nil
}

func (s *process) pid() int { return s.cmd.Process.Pid }

// openFiles counts the file descriptors of a process.
func openFiles(pid int) (int, error) {
	entries, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	return len(entries), err
}

// poll asks until the answer is yes or ctx ends.
func poll(ctx context.Context, what string, ask func() (bool, error)) error {
	for {
		done, err := ask()
		if done || err != nil {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: %w", what, ctx.Err())
		}
	}
}
