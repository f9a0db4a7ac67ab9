package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
)

// markVariable holds the mark in the environment of whatever this process starts.
const markVariable = "TEST_MARK"

// Mark is by what everything is found that this process makes outside of itself. The names of containers, networks and
// volumes begin with it. Temporary files are in a folder of that name. The processes that it starts have it in their
// environment, or their program in that folder, or end with this one (EndWithUs). The first call starts the sweeper,
// which takes all of that away when this process has ended, in whatever way: a panic or a signal runs no clean-up.
// What is made before the first call is not swept.
var Mark = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "fallback-test-")
	if err != nil {
		panic(err)
	}
	mark := filepath.Base(dir)
	if err := startSweeper(mark, dir); err != nil {
		panic(err)
	}
	for name, value := range map[string]string{"TMPDIR": dir, markVariable: mark} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	return mark
})

var names atomic.Int64

// Name is one for a container or a Compose project, like no other.
func Name() string { return fmt.Sprintf("%s-%d", Mark(), names.Add(1)) }

// Scratch is a folder for what all tests of a process share. It is swept.
func Scratch() string {
	Mark()
	return os.TempDir()
}

// sweep waits for the end of its input, and then takes away what has the mark: the processes first, which may be
// making more. An engine may still be making a container for a client that has gone, so it looks until eight times in
// a row there was nothing. It is bounded, as an engine may not answer at all.
const sweep = `
mark=$1 dir=$2
cat >/dev/null
command -v timeout >/dev/null || timeout() { shift; "$@"; } # macOS has none
engine() { timeout 60 docker "$@" 2>/dev/null; }
named() { engine "$@" --quiet --filter "name=$mark-"; }
quiet=0
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	found=
	for file in $(grep -lszx "` + markVariable + `=$mark" /proc/[0-9]*/environ; find /proc/[0-9]* -maxdepth 1 -name exe -lname "$dir/*" 2>/dev/null); do
		found=yes pid=${file%/*}
		kill -9 "${pid#/proc/}"
	done
	for id in $(named ps --all); do found=yes; engine rm --force --volumes "$id"; done
	for id in $(named network ls); do found=yes; engine network rm "$id"; done
	for id in $(named volume ls); do found=yes; engine volume rm --force "$id"; done
	rm -rf "$dir"
	if [ -n "$found" ]; then quiet=0; else quiet=$((quiet + 1)); fi
	if [ $quiet = 8 ]; then exit; fi
	sleep 1
done`

// startSweeper starts it, in a session of its own: an interrupt from the keyboard is not for it.
func startSweeper(mark, dir string) error {
	cmd := exec.Command("sh", "-c", sweep, "sweep", mark, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Dir(dir), markVariable+"=") // it is nobody's to sweep
	// closed by the kernel, with this process
	input, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	sweeper = input
	return nil
}

// sweeper is held on to: were it collected, its end would be closed.
//
//lint:ignore U1000 that is all its use
var sweeper interface{ Close() error }
