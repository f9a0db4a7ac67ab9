package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
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
	raw, err := os.ReadFile(p.proc("stat"))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(raw), ") ") // the name before it may hold spaces
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, errors.New("short /proc stat")
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux
	return time.Duration(user+system) * tick, nil
}

// peakMemory is the most resident memory since the process was started, in MB.
func (p *process) peakMemory() (float64, error) { return p.memory("VmHWM:") }

// rss is the resident memory now, in MB.
func (p *process) rss() (float64, error) { return p.memory("VmRSS:") }

// memory has no value when the process has ended, even while nobody has waited for it.
func (p *process) memory(key string) (float64, error) {
	raw, err := os.ReadFile(p.proc("status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(string(raw), "\n") {
		if rest, ok := strings.CutPrefix(line, key); ok {
			kb, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 64)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has ended", p.pid)
}

func (p *process) proc(file string) string {
	return filepath.Join("/proc", strconv.Itoa(p.pid), file)
}
