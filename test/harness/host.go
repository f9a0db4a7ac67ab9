package harness

import (
	"cmp"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// Memory is the resident memory of a process, now and at its most, in bytes. One that has ended has none, even while
// nobody has waited for it: that is an error.
func Memory(pid int) (now, peak int64, err error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, 0, err
	}
	status, err := p.NewStatus()
	if err != nil {
		return 0, 0, err
	}
	if status.VmRSS == 0 {
		return 0, 0, fmt.Errorf("process %d has ended", pid)
	}
	return int64(status.VmRSS), int64(status.VmHWM), nil
}

// Commit is what is checked out, with "+modified" where something was changed since.
func Commit() string {
	git := exec.Command("git", "--no-optional-locks", "-C", Root(), "describe", "--always", "--abbrev=7", "--exclude=*",
		"--dirty=+modified")
	out, err := git.Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// Exact is the version that the broker says that it is: an image's tag is not exact. It is [Version] if it says none.
func (b *Broker) Exact() string {
	var overview struct {
		Version string `json:"rabbitmq_version"`
	}
	_ = b.Call("GET", "/api/overview", nil, &overview)
	return cmp.Or(overview.Version, Version())
}

// Percentile is the least value that p percent of the sorted ones do not exceed (nearest rank); 0 of none.
func Percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*p+99)/100-1]
}

// Millis is a duration in milliseconds, exact to a microsecond.
func Millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
