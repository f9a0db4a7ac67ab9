//go:build e2e

package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"fallback/test/harness"
)

// published says with which status the management API answers the admin's published password; 0 is no answer.
func (b *bundle) published() int {
	b.t.Helper()
	request, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:"+b.ports["MANAGEMENT_PORT"]+"/api/whoami", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	request.SetBasicAuth("admin", "demonstration-admin")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	answer.Body.Close()
	return answer.StatusCode
}

// running are the containers that run, as one string to compare.
func (b *bundle) running() string {
	b.t.Helper()
	return b.must("--profile", "demo", "ps", "--quiet", "--status", "running")
}

// TestForgottenEnvFile holds that with private passwords in use no forgotten word brings the published ones back, or
// sends a request to the primary for trying things out; and that what is told to type is right as it stands.
func TestForgottenEnvFile(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.forgetAtEnd()
	private := filepath.Join(t.TempDir(), "private")
	build(t).run(t, nil, "definitions", "--private", private).check(t, 0, nil, nil)
	given := "ENV_FILE=" + filepath.Join(private, "fallback.env")

	out, err := b.typed("FALLBACK_TARGET=geheim make up " + given)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(out, "FALLBACK_TARGET: no such setting; the nearest is FALLBACK_TARGET_URL") ||
		strings.Contains(out, "geheim") {
		t.Errorf("a name that is no setting: got\n%s", out)
	}
	for _, line := range []string{
		"$ docker compose --env-file " + private + "/fallback.env exec server /fallback queues",
		"FALLBACK_TARGET_URL=https://api.example.com make up " + given,
		"make down " + given + "    (make down " + given + " VOLUMES=1",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is not in\n%s", line, out)
		}
	}
	own := func(when string) {
		t.Helper()
		if status := b.published(); status != http.StatusUnauthorized {
			t.Errorf("%s: the published password gets %d, want 401", when, status)
		}
		b.checkIdle()
	}
	own("at first")
	b.post("/real", "{}")

	before := b.running()
	refused := func(when, line string) {
		t.Helper()
		out, err := b.typed(line)
		if err == nil || !strings.Contains(out, "passwords of your own") || !strings.Contains(out, "make up "+given) {
			t.Errorf("%s: got %v\n%s", when, err, out)
		}
		if status := b.published(); status == http.StatusOK {
			t.Errorf("%s: the published password is taken", when)
		}
	}
	bare := "ENV_FILE=" + os.DevNull // and no developer's .env
	refused("make up", "make up "+bare)
	refused("the hint, without ENV_FILE", "FALLBACK_TARGET_URL=http://host.docker.internal:9 make up "+bare)
	own("after a bare make up")
	if after := b.running(); after != before {
		t.Errorf("a bare make up has touched what ran: %q, then %q", before, after)
	}

	hint := regexp.MustCompile(`FALLBACK_TARGET_URL=\S+ make up \S+`).FindString(out)
	if out, err := b.typed(strings.Replace(hint, "https://api.example.com", "http://host.docker.internal:9",
		1)); err != nil {
		t.Errorf("the hint as it stands: %v\n%s", err, out)
	}
	if status := b.published(); status != http.StatusUnauthorized {
		t.Errorf("the hint as it stands: the published password gets %d", status)
	}

	up := "docker compose --env-file " + os.DevNull + " up --no-build"
	refused("docker compose up", up)
	if out, err := b.typed(up + " --detach"); err == nil ||
		!strings.Contains(out, `"passwords" didn't complete successfully`) {
		t.Errorf("docker compose up --detach: got %v\n%s", err, out)
	}
	if out, err := b.typed("docker compose --env-file " + os.DevNull + " restart rabbitmq"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	harness.Eventually(t, "the broker itself to be refused", func() bool {
		return strings.Contains(b.must("logs", "rabbitmq"), "passwords of your own")
	})
	if status := b.published(); status != 0 {
		t.Errorf("the broker answers with %d, although it was started with published passwords", status)
	}

	if out, err := b.typed("make down " + given); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	refused("make up after make down", "make up "+bare)
	refused("docker compose up after make down", up)
	if out, err := b.typed("make up " + given); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	own("at last")
	if n := b.ready(); n != 1 {
		t.Errorf("%d requests wait, want the one that was accepted", n)
	}

	if out, err := b.typed("make down VOLUMES=1 " + given); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	b.must("up", "--detach", "--wait", "--wait-timeout", "600", "--no-build", "rabbitmq")
	if status := b.published(); status != http.StatusOK {
		t.Errorf("begun anew: the published password gets %d, want 200", status)
	}
}
