//go:build e2e

package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestNothingIsLeft holds that nothing outlives a test that ends without a clean-up: no container, no process, no file.
func TestNothingIsLeft(t *testing.T) {
	const child = "FALLBACK_TEST_CHILD"
	if how := os.Getenv(child); how != "" {
		leave(t, how)
		return
	}
	t.Parallel()
	for _, how := range []string{"panic", "SIGKILL", "SIGINT", early + "50ms", early + "150ms", early + "300ms"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			log := &Log{}
			Mark()
			cmd := exec.Command(os.Args[0], "-test.run=^TestNothingIsLeft$")
			cmd.Env = append(os.Environ(), child+"="+how)
			cmd.Stdout, cmd.Stderr = log, log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cmd.Process.Kill() })
			var left []string
			Eventually(t, "the child to have something", func() bool {
				left = regexp.MustCompile(`(?m)^left: mark (\S+) folder (\S+) process (\d+)$`).FindStringSubmatch(log.String())
				return left != nil
			})
			delay, isEarly := strings.CutPrefix(how, early)
			switch {
			case isEarly:
				wait, err := time.ParseDuration(delay)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(wait)
				_ = cmd.Process.Kill()
			case how == "SIGKILL":
				_ = cmd.Process.Kill()
			case how == "SIGINT":
				_ = cmd.Process.Signal(os.Interrupt)
			}
			if err := cmd.Wait(); err == nil {
				t.Fatalf("the child did not end as it was to:\n%s", log)
			}
			if !isEarly && !strings.Contains(log.String(), "running true") {
				t.Fatalf("the child had no container:\n%s", log)
			}
			mark, folder, process := left[1], left[2], left[3]
			var seen time.Time // with nothing left
			Eventually(t, "all to be gone", func() bool {
				containers, err := Run(Patience, "docker", "ps", "--all", "--quiet", "--filter", "name="+mark)
				_, file := os.Stat(folder)
				_, running := os.Stat(filepath.Join("/proc", process))
				if err != nil || containers != "" || file == nil || running == nil {
					seen = time.Time{}
					return false
				}
				if seen.IsZero() {
					seen = time.Now()
				}
				return time.Since(seen) > 8*time.Second // what an engine was about to make is there by now
			})
		})
	}
}

// early is a kill so long after the container was asked for: it may be about to be made.
const early = "SIGKILL after "

// leave makes things of each kind, and ends without having taken them away.
func leave(t *testing.T, how string) {
	mark := Mark()
	sleep := exec.Command("sleep", "600")
	sleep.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // no signal to us reaches it
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(Scratch(), "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	say := func() { fmt.Println("left: mark", mark, "folder", Scratch(), "process", sleep.Process.Pid) }
	if strings.HasPrefix(how, early) {
		say()
	}
	b, err := StartBroker(BrokerOptions{Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	out, err := Run(Patience, "docker", "inspect", "--format", "running {{.State.Running}}", b.ID())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Print(out)
	say()
	if how == "panic" {
		panic("on purpose")
	}
	<-context.Background().Done()
}

// TestPortsAreOnLoopback holds that nobody else on the network reaches a broker of the tests.
func TestPortsAreOnLoopback(t *testing.T) {
	t.Parallel()
	b, err := StartBroker(BrokerOptions{Bare: true, Ports: []string{"8080/tcp"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	out, err := Run(Patience, "docker", "inspect", "--format",
		`{{range $port, $at := .NetworkSettings.Ports}}{{range $at}}{{$port}} {{.HostIp}}{{"\n"}}{{end}}{{end}}`,
		b.ID())
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(out)
	if len(lines) != 2*3 {
		t.Errorf("published are %q, want three ports", lines)
	}
	for i := 1; i < len(lines); i += 2 {
		if lines[i] != "127.0.0.1" {
			t.Errorf("port %s is published on %s", lines[i-1], lines[i])
		}
	}
}
