//go:build e2e

package harness

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestRemovedWhenATestPanics holds that no container outlives a test that ends in the worst way: no clean-up has run.
func TestRemovedWhenATestPanics(t *testing.T) {
	t.Parallel()
	const child = "FALLBACK_TEST_PANIC"
	if os.Getenv(child) != "" {
		b, err := StartBroker(BrokerOptions{Bare: true})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("running", running(b.ID()), b.ID())
		panic("on purpose")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), child+"=yes")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "panic: on purpose") {
		t.Fatalf("the child did not panic: %v\n%s", err, out)
	}
	found := regexp.MustCompile(`running true ([0-9a-f]{64})`).FindSubmatch(out)
	if found == nil {
		t.Fatalf("the child had no container:\n%s", out)
	}
	id := string(found[1])
	Eventually(t, 30*time.Second, "the container to be removed", func() bool {
		out, err := exec.Command("docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", "id="+id).Output()
		return err == nil && len(out) == 0
	})
}

func running(id string) bool {
	out, err := exec.Command("docker", "inspect", "--format", "{{.State.Running}}", id).Output()
	return err == nil && string(out) == "true\n"
}
