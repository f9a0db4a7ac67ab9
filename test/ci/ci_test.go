// Package ci tests the scripts of .ci: each in a small project of its own.
package ci

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"fallback/test/harness"
)

// project is a folder with scripts of .ci, and with these files.
func project(t *testing.T, files map[string]string, scripts ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, script := range scripts {
		raw, err := os.ReadFile(filepath.Join(harness.Root(), ".ci", script))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, ".ci", script), string(raw))
	}
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	return dir
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// run is what a script says, and its exit code. PATH begins with the project's folder, and of the environment nothing is
// handed on that a make above may have set.
func run(t *testing.T, dir string, command ...string) (said string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "MAKEFLAGS=", "MAKELEVEL=", "GOFLAGS=", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return string(out), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(out), 0
}
