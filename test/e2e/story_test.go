//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// makes is the Makefile's target as a user runs it, without the set-up that `make test` has done already, with further
// variables of the shell.
func (b *bundle) makes(target, envFile string, env ...string) (*exec.Cmd, *harness.Log) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	b.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "make", "-o", "docker", "-o", "compose", "-o", "rabbitmq", "-o", "image", "-o",
		"curl", "DOTENV=", "ENV_FILE="+envFile, target)
	cmd.Dir = harness.Root()
	cmd.Env = slices.Concat(b.env, []string{"COMPOSE_PROJECT_NAME=" + b.project}, env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 5 * time.Second
	log := &harness.Log{}
	cmd.Stdout, cmd.Stderr = log, log
	return cmd, log
}

// up runs `make up` to its end, which must be a good one.
func (b *bundle) up(env ...string) string {
	b.t.Helper()
	begin := time.Now()
	cmd, log := b.makes("up", os.DevNull, env...)
	if err := cmd.Run(); err != nil {
		b.t.Fatalf("make up %q: %v\n%s", env, err, log)
	}
	b.t.Logf("make up %q took %s", env, time.Since(begin).Round(time.Second))
	return log.String()
}

func (b *bundle) forget() {
	b.t.Helper()
	cmd, log := b.makes("down", os.DevNull, "VOLUMES=1")
	if err := cmd.Run(); err != nil {
		b.t.Fatalf("make down VOLUMES=1: %v\n%s", err, log)
	}
	if left := b.must("--profile", "demo", "ps", "--all", "--quiet"); left != "" {
		b.t.Errorf("make down leaves %s", left)
	}
}

// arrived is what the primary shows of a request.
type arrived struct {
	Target string
	ID     string `json:"fallback_id"`
	Answer int
}

func (b *bundle) arrived() (got []arrived) {
	b.t.Helper()
	r := send(b.t, http.MethodGet, b.primary("/_primary/requests"), "")
	if err := json.Unmarshal(r.body, &got); err != nil {
		b.t.Fatalf("%v in %s", err, r)
	}
	return got
}

func (b *bundle) primary(path string) string {
	return "http://127.0.0.1:" + b.ports["PRIMARY_PORT"] + path
}

func (b *bundle) tell(mode string) {
	b.t.Helper()
	if r := send(b.t, http.MethodPut, b.primary("/_primary/mode"), mode); r.status != http.StatusOK {
		b.t.Fatalf("the primary is told to be %s: got %s", mode, r)
	}
}

func (b *bundle) post(path, body string) {
	b.t.Helper()
	checkAccepted(b.t, send(b.t, http.MethodPost, "http://127.0.0.1:"+b.ports["PORT"]+"/fallback"+path, body))
}

// eventuallyAnswered waits until a request of each path has got the answer.
func (b *bundle) eventuallyAnswered(answer int, paths ...string) {
	b.t.Helper()
	harness.Eventually(b.t, fmt.Sprintf("%q to be answered with %d", paths, answer), func() bool {
		got := b.arrived()
		return !slices.ContainsFunc(paths, func(path string) bool {
			return !slices.ContainsFunc(got, func(a arrived) bool { return a.Target == path && a.Answer == answer })
		})
	})
}

// checkIdle holds that nothing is delivered any more: the drain has no target, and the primary is gone.
func (b *bundle) checkIdle() {
	b.t.Helper()
	if services := b.must("--profile", "demo", "ps", "--all", "--services"); strings.Contains(services, "primary") {
		b.t.Errorf("the primary is there: %q", services)
	}
	if log := b.must("logs", "drain"); !strings.Contains(log, "the drain idles") {
		b.t.Errorf("the drain does not idle: %s", log)
	}
}

// checkStory holds that the output of `make up` has the parts of the story in their order, all about the same request.
func checkStory(t *testing.T, out string) {
	t.Helper()
	id := regexp.MustCompile(`"id":"([^"]+)"`).FindStringSubmatch(out)
	if id == nil {
		t.Fatalf("no id in\n%s", out)
	}
	rest := out
	for _, part := range []string{
		"1. The primary is down", "curl: (", "2. A request is accepted", "HTTP/1.1 202 Accepted", "Fallback-Id: " +
			id[1],
		"3. It waits", "FallbackAPIQueue ", "4. The primary is up", `"fallback_id": "` + id[1] + `"`, `"answer": 200`,
		"FallbackAPIQueue ", "Send requests to", "make down",
	} {
		_, after, found := strings.Cut(rest, part)
		if !found {
			t.Fatalf("%q is missing, or not in its place, in\n%s", part, out)
		}
		rest = after
	}
	waits := regexp.MustCompile(`(?m)^FallbackAPIQueue +(\d+)`).FindAllStringSubmatch(out, -1)
	if len(waits) != 2 || waits[0][1] == "0" || waits[1][1] != "0" {
		t.Errorf("the main queue is shown as %q, want some, then none", waits)
	}
}

// TestStory runs `make up` as a user does: the first time, broken off, again, and where there is something else to do.
func TestStory(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.forgetAtEnd()
	out := b.up()
	checkStory(t, out)
	checkReadmeStory(t, b, out)
	if n := b.ready(); n != 0 {
		t.Errorf("after the story %d wait", n)
	}

	broken, log := b.makes("up", os.DevNull)
	if err := broken.Start(); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the middle of the story",
		func() bool { return strings.Contains(log.String(), "3. It waits") })
	_ = syscall.Kill(-broken.Process.Pid, syscall.SIGINT)
	if err := broken.Wait(); err == nil {
		t.Errorf("interrupted: it ended well\n%s", log)
	}
	if n := b.ready(); n != 1 {
		t.Errorf("interrupted: %d wait, want the story's request", n)
	}
	checkStory(t, b.up())
	if got := b.arrived(); len(got) != 2 || got[0].Answer != 200 || got[1].Answer != 200 {
		t.Errorf("after a broken off one: got %+v, want its request, and the new one", got)
	}

	for _, row := range []struct {
		name string
		test func(*testing.T, *bundle)
	}{{"down and limited", storyLimited}, {"slow", storySlow}, {"picky", storyPicky}} {
		t.Run(row.name, func(t *testing.T) { row.test(t, b) })
	}

	b.tell("down")
	b.post("/mine", "{}")
	if out := b.up(); !strings.Contains(out, "Requests wait from before") || strings.Contains(out, "make-up") {
		t.Errorf("with a request that waits: got\n%s", out)
	}
	b.checkIdle()
	out = b.up("FALLBACK_TARGET_URL=http://user:geheim@host.docker.internal:9")
	if !strings.Contains(out, "FALLBACK_TARGET_URL is set") || strings.Contains(out, "make-up") ||
		strings.Contains(out, "geheim") {
		t.Errorf("with a target: got\n%s", out)
	}
	if n := b.ready(); n != 1 {
		t.Errorf("of one request that waited, and none of the story's, %d wait", n)
	}
	b.forget()
}

// storyLimited holds that the drain waits for a primary that is down, and does not go faster than it lets it.
func storyLimited(t *testing.T, b *bundle) {
	var paths []string
	b.tell("down")
	before := len(b.arrived())
	for i := range 6 {
		paths = append(paths, fmt.Sprint("/limited/", i))
		b.post(paths[i], "{}")
	}
	time.Sleep(3 * time.Second) // a run of the drain, and a bit
	if n, got := b.ready(), len(b.arrived())-before; n != 6 || got != 0 {
		t.Errorf("down: of 6 requests %d wait and %d have arrived", n, got)
	}
	b.tell("limited")
	b.eventuallyAnswered(200, paths...)
	if !slices.ContainsFunc(b.arrived(), func(a arrived) bool { return a.Answer == http.StatusTooManyRequests }) {
		t.Error("limited: it never was too much")
	}
}

func storySlow(t *testing.T, b *bundle) {
	b.tell("slow")
	begin := time.Now()
	b.post("/slow", "{}")
	b.eventuallyAnswered(200, "/slow")
	if took := time.Since(begin); took < 2*time.Second {
		t.Errorf("it took %s", took)
	}
}

func storyPicky(t *testing.T, b *bundle) {
	b.tell("picky")
	b.post("/picky/good", `{"order":42}`)
	b.post("/picky/bad", `{"odor":42}`)
	b.eventuallyAnswered(200, "/picky/good")
	b.eventuallyAnswered(422, "/picky/bad")
	harness.Eventually(t, "it to be parked", func() bool {
		parked := b.must("exec", "-T", "drain", "/fallback", "peek", "parked")
		return strings.Contains(parked, "/picky/bad") && strings.Contains(parked, "422") &&
			!strings.Contains(parked, "/picky/good")
	})
}

// checkReadmeStory holds that what the README shows of `make up` is in its output, line by line.
func checkReadmeStory(t *testing.T, b *bundle, out string) {
	t.Helper()
	_, shown, found := strings.Cut(readme(t), "```text\n1. The primary is down.\n")
	shown, _, closed := strings.Cut(shown, "```")
	if !found || !closed {
		t.Fatal("the README does not show the story")
	}
	for name, port := range map[string]string{"PORT": "8080", "MANAGEMENT_PORT": "15672", "PRIMARY_PORT": "8090"} {
		out = strings.ReplaceAll(out, "127.0.0.1:"+b.ports[name], "127.0.0.1:"+port)
	}
	out = strings.ReplaceAll(out, " --env-file "+os.DevNull, "") // what makes gives, and the hints repeat
	rest := storyLines(out)
	for _, line := range storyLines(shown) {
		if line == "" || line == "..." {
			continue
		}
		at := slices.Index(rest, line)
		if at < 0 {
			t.Errorf("the README has the line %q, which is not in its place in\n%s", line, out)
			return
		}
		rest = rest[at+1:]
	}
}

// storyLines are the lines of a story, with what no two have in common taken off.
func storyLines(text string) []string {
	lines := strings.Split(normalize(text), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, topology.DefaultQueue) {
			lines[i] = storyRow(line)
		}
	}
	return lines
}

// storyRow is a row of `fallback queues` with what is certain in the story: the name, and what is ready, unacked and
// consumed. Rates are of the last seconds. What has no statistics yet, soon after the broker's start, counts as the 0
// that it will be; and on a queue that has just become empty, the drain may still be looking for more.
func storyRow(line string) string {
	cells := strings.Fields(strings.TrimSuffix(line, "no statistics yet"))
	if len(cells) != 6 {
		return line
	}
	for i, cell := range cells {
		if i > 3 {
			cells[i] = "N"
		} else if cell == "-" {
			cells[i] = "0"
		}
	}
	if cells[0] == topology.DefaultQueue && cells[1] == "0" {
		cells[2], cells[3] = "N", "N"
	}
	return strings.Join(cells, " ")
}

// TestStoryFails holds that `make up` does not end well when the request is not accepted, or not delivered, and that
// with passwords of one's own nothing is sent, nor delivered to the primary.
func TestStoryFails(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.forgetAtEnd()
	for _, row := range []struct {
		name, want string
		env        []string
	}{
		{"not accepted", "the request was not accepted", []string{"FALLBACK_METHODS=PUT"}},
		{"parked instead", "the request was not delivered", []string{"FALLBACK_MAX_AGE=1ms", "FALLBACK_STALE=park"}},
	} {
		cmd, log := b.makes("up", os.DevNull, row.env...)
		if err := cmd.Run(); err == nil || !strings.Contains(log.String(), row.want) {
			t.Errorf("%s: got %v, want it to fail because %s\n%s", row.name, err, row.want, log)
		}
	}
	if out := b.up("FALLBACK_TOKENS=geheim"); !strings.Contains(out, "asks for a token") ||
		strings.Contains(out, "geheim") {
		t.Errorf("with a token: got\n%s", out)
	}
	b.forget()

	private := filepath.Join(t.TempDir(), "private")
	build(t).run(t, nil, "definitions", "--private", private).check(t, 0, nil, nil)
	cmd, log := b.makes("up", filepath.Join(private, "fallback.env"))
	if err := cmd.Run(); err != nil {
		t.Fatalf("with private passwords: %v\n%s", err, log)
	}
	if !strings.Contains(log.String(), "the drain idles until") || strings.Contains(log.String(), "/_primary") ||
		strings.Contains(log.String(), "demonstration") {
		t.Errorf("with private passwords: got\n%s", log)
	}
	b.checkIdle()
}
