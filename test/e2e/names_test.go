//go:build e2e

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"fallback/test/harness"
)

// typed runs a line as one types it, but for the set-up that is done already, and returns what it says.
func (b *bundle) typed(line string) (string, error) {
	const make = `make() { command make -o docker -o compose -o rabbitmq -o image -o curl DOTENV= "$@"; }; `
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", make+line)
	cmd.Dir, cmd.Env = harness.Root(), slices.Concat(b.env, []string{"COMPOSE_PROJECT_NAME=" + b.project})
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) } // bash, and what it runs
	cmd.WaitDelay = harness.Patience
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestUnknownNames holds that `make up` tells a slip that would open the door, wherever it stands, shows no value, and
// starts nothing.
func TestUnknownNames(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.forgetAtEnd()
	file := filepath.Join(t.TempDir(), "env")
	const content = "# FALLBACK_API_TOKEN=geheim\nFALLBACK_AUTH_TOKEN=\nFALLBACK_ANY_TOKEN=\"\"\n export " +
		"FALLBACK_WEBHOOK_SECRET = 'geheim'\nFALLBACK_MAX_AGES=geheim\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	const slip, other = "FALLBACK_WEBHOOK_SECRET: no such setting; the nearest is FALLBACK_WEBHOOK_SECRETS",
		"FALLBACK_MAX_AGES: no such setting; the nearest is FALLBACK_MAX_AGE"
	for _, row := range []struct {
		name, line string
		want       []string
	}{
		{"shell", "FALLBACK_TOKEN=geheim make up ENV_FILE=" + os.DevNull,
			[]string{"FALLBACK_TOKEN: no such setting; the nearest is FALLBACK_TOKENS"}},
		{"ENV_FILE", "make up ENV_FILE=" + file, []string{slip, other}},
		{".env", "make up DOTENV=" + file + " ENV_FILE=" + os.DevNull, []string{slip, other}},
	} {
		out, err := b.typed(row.line)
		if err == nil {
			t.Errorf("%s: it ended well\n%s", row.name, out)
		}
		for _, want := range row.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q is not in\n%s", row.name, want, out)
			}
		}
		if strings.Count(out, "no such setting") != len(row.want) || strings.Contains(out, "geheim") {
			t.Errorf("%s: got\n%s", row.name, out)
		}
	}
	if left := b.must("--profile", "demo", "ps", "--all", "--quiet"); left != "" {
		t.Errorf("something was started: %s", left)
	}
}
