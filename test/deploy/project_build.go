package deploy

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// checkFolder checks how a function is built and what of it is uploaded. The folder is relative to root, with slashes.
func checkFolder(root, folder string) []error {
	dir := filepath.Join(root, filepath.FromSlash(folder))
	faults := checkScript(root, folder+"/build.sh")
	include, err := os.ReadFile(filepath.Join(dir, ".include"))
	switch {
	case err != nil:
		faults = append(faults, fmt.Errorf("%s: without .include the sources are uploaded too: %w", folder, err))
	case strings.TrimSuffix(string(include), "\n") != "exec":
		faults = append(faults, fmt.Errorf("%s/.include: got %q, want only exec: one file is uploaded as it is, "+
			"several as a zip", folder, include))
	}
	if _, err := os.Lstat(filepath.Join(dir, ".ignore")); err == nil {
		faults = append(faults, fmt.Errorf("%s/.ignore: the deployer refuses it beside .include", folder))
	}
	return faults
}

// checkScript finds a build script that would not run, here or in a fresh clone.
func checkScript(root, script string) []error {
	info, err := os.Stat(filepath.Join(root, filepath.FromSlash(script)))
	if err != nil {
		return []error{fmt.Errorf("without a build script the platform builds, which has only this folder: %w", err)}
	}
	var faults []error
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 != 0o111 {
		faults = append(faults, fmt.Errorf("%s: mode %v, want an executable file", script, info.Mode()))
	}
	mode, err := gitMode(root, script)
	if err != nil {
		return append(faults, err)
	}
	if mode != "" && mode != "100755" {
		faults = append(faults, fmt.Errorf("%s: git has it with mode %s, want 100755: git update-index --chmod=+x",
			script, mode))
	}
	return faults
}

// gitMode is the mode that git has recorded for a file; empty if root is no git checkout or the file is not tracked
// yet.
func gitMode(root, file string) (string, error) {
	if _, err := os.Lstat(filepath.Join(root, ".git")); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	// A checkout that belongs to someone else, as in many a CI container, is read all the same.
	git := exec.Command("git", "-c", "safe.directory=*", "-C", root, "ls-files", "-s", "--", file)
	git.Env = withoutGit(os.Environ())
	out, err := git.Output()
	if err != nil {
		return "", fmt.Errorf("git ls-files %s: %w", file, err)
	}
	mode, _, _ := strings.Cut(string(out), " ")
	return mode, nil
}

// withoutGit drops the variables by which a git hook points at its own repository and index.
func withoutGit(environ []string) []string {
	var kept []string
	for _, v := range environ {
		if !strings.HasPrefix(v, "GIT_") {
			kept = append(kept, v)
		}
	}
	return kept
}
