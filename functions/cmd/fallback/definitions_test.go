package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"fallback/functions/topology"
)

// command runs a command in this process, with env as its environment.
func command(t *testing.T, env map[string]string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, talk bytes.Buffer
	var environ []string
	for name, value := range env {
		environ = append(environ, name+"="+value)
	}
	code = run(t.Context(), args, world{environ, nil, &out, &talk})
	return out.String(), talk.String(), code
}

// TestDefinitionsAreFresh holds that the committed file is what the program prints.
func TestDefinitionsAreFresh(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("../../../rabbitmq/definitions.json")
	if err != nil {
		t.Fatal(err)
	}
	got, stderr, code := command(t, nil, "definitions")
	if code != 0 || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if got != string(want) {
		t.Error("rabbitmq/definitions.json is stale; make it anew: go run ./functions/cmd/fallback definitions > " +
			"rabbitmq/definitions.json")
	}
}

// imported is what the broker reads of a definitions file.
type imported struct {
	Users []struct {
		Name      string `json:"name"`
		Hash      []byte `json:"password_hash"`
		Algorithm string `json:"hashing_algorithm"`
	} `json:"users"`
	// The rest is the same with every password.
	VHosts      any `json:"vhosts"`
	Permissions any `json:"permissions"`
	Queues      any `json:"queues"`
	Policies    any `json:"policies"`
}

// accepts is RabbitMQ's rule: four bytes of salt, then SHA-256 of the salt and the password.
func accepts(hash []byte, password string) bool {
	if len(hash) != 4+sha256.Size {
		return false
	}
	sum := sha256.Sum256(append(slices.Clone(hash[:4]), password...))
	return bytes.Equal(hash[4:], sum[:])
}

func TestAccepts(t *testing.T) {
	t.Parallel()
	// The example in RabbitMQ's documentation of passwords, for "test12".
	hash, err := base64.StdEncoding.DecodeString("kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR")
	if err != nil {
		t.Fatal(err)
	}
	if !accepts(hash, "test12") || accepts(hash, "test13") {
		t.Error("not RabbitMQ's rule")
	}
}

// private makes a pair of private files in a folder of its own, from within it, and returns what is in them.
func private(t *testing.T, env map[string]string) (definitions []byte, variables map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	if stdout, stderr, code := command(t, env, "definitions", "--private", "private"); code != 0 || stdout != "" {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	definitions, err := os.ReadFile("private/definitions.json")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile("private/fallback.env")
	if err != nil {
		t.Fatal(err)
	}
	variables = map[string]string{}
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			t.Fatalf("fallback.env: no variable in %q", line)
		}
		variables[name] = strings.Trim(value, "'") // as the shell and compose read it
	}
	return definitions, variables
}

// passwords are the variables of the four users.
var passwords = map[string]string{
	topology.Admin:     "RABBITMQ_ADMIN_PASSWORD",
	topology.Publisher: "FALLBACK_PUBLISHER_PASSWORD",
	topology.Drainer:   "FALLBACK_DRAINER_PASSWORD",
	topology.Monitor:   "FALLBACK_MONITOR_PASSWORD",
}

func TestPrivateDefinitions(t *testing.T) { // not parallel: it changes the working directory
	raw, env := private(t, nil)
	if got := env["FALLBACK_DEFINITIONS"]; got != "./private/definitions.json" {
		t.Errorf("FALLBACK_DEFINITIONS: got %q", got)
	}
	if got, want := len(env), len(passwords)+1; got != want {
		t.Errorf("fallback.env: got %d variables, want %d: %q", got, want, slices.Sorted(maps.Keys(env)))
	}

	var got, committed imported
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	demonstration, _, _ := command(t, nil, "definitions")
	if err := json.Unmarshal([]byte(demonstration), &committed); err != nil {
		t.Fatal(err)
	}
	if len(got.Users) != len(passwords) || len(committed.Users) != len(passwords) {
		t.Fatalf("got %d users, and %d in the committed file, want %d", len(got.Users), len(committed.Users),
			len(passwords))
	}
	long := regexp.MustCompile(`^[0-9A-Za-z]{52}$`)
	seen := map[string]bool{}
	for i, user := range got.Users {
		password := env[passwords[user.Name]]
		if !long.MatchString(password) {
			t.Errorf("%s: password %q, want 52 letters and digits", user.Name, password)
		}
		if strings.Contains(string(raw), password) {
			t.Errorf("%s: the password is in definitions.json", user.Name)
		}
		if user.Algorithm != "rabbit_password_hashing_sha256" || !accepts(user.Hash, password) {
			t.Errorf("%s: the hash (%s) is not that of the password in fallback.env", user.Name, user.Algorithm)
		}
		if old := committed.Users[i]; old.Name != user.Name || bytes.Equal(old.Hash[:4], user.Hash[:4]) {
			t.Errorf("%s: the salt is that of the committed file", user.Name)
		}
		seen[password], seen[string(user.Hash[:4])] = true, true
	}

	again, other := private(t, nil)
	for user, variable := range passwords {
		seen[other[variable]] = true
		if strings.Contains(string(again), env[variable]) {
			t.Errorf("%s: the password of one file is in another", user)
		}
	}
	if got, want := len(seen), 3*len(passwords); got != want {
		t.Errorf("got %d different passwords and salts in two runs, want %d", got, want)
	}

	got.Users, committed.Users = nil, nil
	if a, b := encode(t, got), encode(t, committed); a != b {
		t.Errorf("queues, policies and permissions differ from the committed file's:\n%s\n%s", a, b)
	}
}

// TestPrivateDefinitionsInAbsoluteFolder holds that compose finds the file from wherever it runs.
func TestPrivateDefinitionsInAbsoluteFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "private")
	if _, stderr, code := command(t, nil, "definitions", "--private", dir); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	env, err := os.ReadFile(filepath.Join(dir, "fallback.env"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "\nFALLBACK_DEFINITIONS='" + filepath.Join(dir, "definitions.json") +
		"'\n"; !strings.Contains(string(env), want) {
		t.Errorf("fallback.env does not have the line %q", want)
	}
}

// TestPrivateDefinitionsOfAnotherQueue holds that the name of the queue reaches both files.
func TestPrivateDefinitionsOfAnotherQueue(t *testing.T) {
	raw, env := private(t, map[string]string{"FALLBACK_QUEUE": "Orders"})
	if env["FALLBACK_QUEUE"] != "Orders" {
		t.Errorf("FALLBACK_QUEUE: got %q, want Orders", env["FALLBACK_QUEUE"])
	}
	if s := string(raw); strings.Contains(s, "FallbackAPIQueue") || !strings.Contains(s, `"Orders.retry.10s"`) {
		t.Errorf("definitions.json is not about Orders alone:\n%s", s)
	}
}

// TestPrivateDefinitionsModes holds that the broker, another user, can read its file, and that nobody else can read the
// passwords, under whatever mask.
func TestPrivateDefinitionsModes(t *testing.T) { // not parallel: the mask is the process's
	old := syscall.Umask(0)
	t.Cleanup(func() { syscall.Umask(old) })
	for _, mask := range []int{0, 0o022, 0o077} {
		syscall.Umask(mask)
		private(t, nil)
		for name, want := range map[string]fs.FileMode{"definitions.json": 0o644, "fallback.env": 0o600} {
			info, err := os.Stat(filepath.Join("private", name))
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != want {
				t.Errorf("%s with mask %03o: got mode %v, want %v", name, mask, info.Mode(), want)
			}
		}
	}
}

// TestPrivateDefinitionsAreKept holds that passwords which may be in use are never overwritten.
func TestPrivateDefinitionsAreKept(t *testing.T) {
	before, env := private(t, nil)
	kept, err := os.ReadFile("private/fallback.env")
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := command(t, nil, "definitions", "--private", "private")
	if code != 1 || stdout != "" || !strings.Contains(stderr, "is there already") {
		t.Errorf("exit code %d, stdout %q, stderr %q: want 1 and the reason", code, stdout, stderr)
	}
	for _, variable := range passwords {
		if strings.Contains(stderr, env[variable]) {
			t.Errorf("the error shows %s", variable)
		}
	}
	for name, want := range map[string][]byte{"definitions.json": before, "fallback.env": kept} {
		got, err := os.ReadFile(filepath.Join("private", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s was changed", name)
		}
	}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestPrivateDefinitionsNeverHalf holds that passwords are not written which no definitions file has.
func TestPrivateDefinitionsNeverHalf(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "definitions.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := command(t, nil, "definitions", "--private", dir); code != 1 ||
		!strings.Contains(stderr, "is there already") {
		t.Errorf("exit code %d, stderr %q: want 1 and the reason", code, stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "fallback.env")); err == nil {
		t.Error("there are passwords without a broker that has them")
	}
}

// TestWriteAllOrNothing holds that a disk which has no room for the second file is left as it was.
func TestWriteAllOrNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "none", "second")
	files := []file{{first, []byte("1"), 0o600}, {second, []byte("2"), 0o644}}
	if err := writeAll(files); err == nil || !strings.Contains(err.Error(), second) {
		t.Errorf("got %v, want an error that names %s", err, second)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	if err := os.Mkdir(filepath.Dir(second), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeAll(files); err != nil {
		t.Error(err)
	}
	if err := writeAll(files[1:]); err == nil {
		t.Error("a file was written over")
	}
	for name, want := range map[string]string{first: "1", second: "2"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}
