package harness

import (
	"os/exec"
	"syscall"
)

// EndWithUs has a command that is about to start be killed when this process ends, in whatever way, on systems that
// can.
func EndWithUs(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
