package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"fallback/test/harness"
)

// process is a server under measurement, in a process of its own so that its cost can be told apart; or the broker.
type process struct {
	pid int
	cmd *exec.Cmd // nil for the broker, which is not ours to stop
}

// launch starts one of the servers at addr.
func launch(w *world, command string, addr string) (*process, error) {
	cmd := exec.Command(w.self, "-serve", command, "-addr", addr)
	if command == "fallback" {
		cmd = exec.Command(w.fallback, "serve")
	}
	// Not the caller's environment: a GOGC or a FALLBACK_ setting there would change what is measured.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "AMQP_SERVER_URL=" + w.amqpURL, "FALLBACK_ADDR=" + addr,
		"LOG_LEVEL=warn"}
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &process{pid: cmd.Process.Pid, cmd: cmd}, nil
}

// startServer starts one of the servers at addr and waits until it takes connections and, if it has one, is ready.
func startServer(w *world, command string, addr string) (*process, error) {
	p, err := launch(w, command, addr)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if command == "fallback" {
			health := exec.Command(w.fallback, "health", "--addr", addr)
			health.Env = p.cmd.Env
			if health.Run() == nil {
				return p, nil
			}
		} else if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			return p, nil
		}
		if time.Now().After(end) {
			p.stop()
			return nil, fmt.Errorf("%s did not come up at %s", command, addr)
		}
	}
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(12*time.Second, func() { _ = p.cmd.Process.Kill() })
	_ = p.cmd.Wait()
	timer.Stop()
}

// cpu is the processor time that the process has used.
func (p *process) cpu() (time.Duration, error) {
	proc, err := procfs.NewProc(p.pid)
	if err != nil {
		return 0, err
	}
	stat, err := proc.Stat()
	return time.Duration(stat.CPUTime() * float64(time.Second)), err
}

// memory is the resident memory, now and at its most since the process was started, in MB.
func (p *process) memory() (now, peak float64, err error) {
	n, most, err := harness.Memory(p.pid)
	return float64(n) / (1 << 20), float64(most) / (1 << 20), err
}
