package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDeploy runs what `make deploy` runs, with a doctl that only says what it was told: nothing that .env.example has
// made up is deployed, and no function that could not work.
func TestDeploy(t *testing.T) {
	t.Parallel()
	const (
		untouched   = ""
		broker      = `AMQP_SERVER_URL="amqps://fallback-publisher:geheim@broker.test:5671/"` + "\n"
		drainBroker = `FALLBACK_DRAIN_AMQP_URL='amqps://fallback-drainer:geheim@broker.test/' # mine` + "\n"
		drainTarget = "export FALLBACK_DRAIN_TARGET_URL = https://api.test\n"
	)
	for _, row := range []struct {
		name, edits string // edits come after the copy of .env.example: the last line of a name counts
		project     string // added to the function enqueue's environment
		environ     []string
		says, runs  string // runs is empty where nothing may be deployed
	}{
		{"copied, and not edited", untouched, "", nil,
			"AMQP_SERVER_URL is as in .env.example (change-me, broker.example.com)", ""},
		{"the host alone", `AMQP_SERVER_URL="amqps://fallback-publisher:change-me@broker.test/"`, "", nil,
			"AMQP_SERVER_URL is as in .env.example (change-me)", ""},
		{"the password alone", `AMQP_SERVER_URL=amqps://fallback-publisher:geheim@broker.example.com/`, "", nil,
			"(broker.example.com)", ""},
		{"the broker", broker, "", nil, "without the function drain", "serverless deploy . --exclude fallback/drain"},
		{"the broker, in the shell", untouched, "", []string{"AMQP_SERVER_URL=amqps://u:geheim@broker.test/"},
			"without the function drain", "serverless deploy . --exclude fallback/drain"},
		{"half of the drain", broker + drainTarget, "", nil,
			"FALLBACK_DRAIN_AMQP_URL is as in .env.example (change-me, broker.example.com)", ""},
		{"the other half", broker + drainBroker, "", nil,
			"FALLBACK_DRAIN_TARGET_URL is as in .env.example (api.example.com)", ""},
		{"all", broker + drainBroker + drainTarget, "", nil, "", "serverless deploy ."},
		{"a token that is none", broker + `FALLBACK_TOKENS="the output of: openssl rand -hex 32"`, "FALLBACK_TOKENS",
			nil, "FALLBACK_TOKENS is as in .env.example (the output of)", ""},
		{"a secret that is none", broker + `FALLBACK_WEBHOOK_SECRETS="whsec_..."`, "FALLBACK_WEBHOOK_SECRETS", nil,
			"FALLBACK_WEBHOOK_SECRETS is as in .env.example (whsec_...)", ""},
		{"a token that no function gets", broker + `FALLBACK_TOKENS="geheim"`, "", nil,
			"FALLBACK_TOKENS is set, and project.yml hands it to no function", ""},
		{"a secret in the shell that no function gets", broker, "", []string{"FALLBACK_WEBHOOK_SECRETS=geheim"},
			"FALLBACK_WEBHOOK_SECRETS is set, and project.yml", ""},
		{"a token", broker + `FALLBACK_TOKENS="geheim"`, "FALLBACK_TOKENS", nil, "",
			"serverless deploy . --exclude fallback/drain"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := deployable(t)
			if row.project != "" {
				const line = `          LOG_LEVEL: "${LOG_LEVEL}"` + "\n"
				write(t, dir, "project.yml", strings.Replace(string(readProject(t)), line,
					line+"          "+row.project+`: "${`+row.project+`}"`+"\n", 1))
			}
			write(t, dir, ".env", readText(t, ".env.example")+"\n"+row.edits)
			out, err := runDeploy(dir, row.environ...)
			if (err == nil) != (row.runs != "") || !strings.Contains(out, row.says) {
				t.Errorf("got %v, want %q\n%s", err, row.says, out)
			}
			if _, ran, _ := strings.Cut(out, "doctl was told: "); strings.TrimSpace(ran) != row.runs {
				t.Errorf("doctl was told %q, want %q\n%s", ran, row.runs, out)
			}
			if strings.Contains(out, "geheim") {
				t.Errorf("it shows a secret:\n%s", out)
			}
		})
	}
	t.Run("no .env", func(t *testing.T) {
		t.Parallel()
		if out, err := runDeploy(deployable(t)); err == nil || !strings.Contains(out, "cp .env.example .env") {
			t.Errorf("got %v\n%s", err, out)
		}
	})
}

// deployable is a folder with what `make deploy` looks at.
func deployable(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{"project.yml", ".env.example", "packages/deploy.sh"} {
		write(t, dir, name, readText(t, name))
	}
	write(t, dir, "bin/doctl.sh", "#!/bin/sh\necho \"doctl was told: $*\"\n")
	if err := os.Rename(filepath.Join(dir, "bin/doctl.sh"), filepath.Join(dir, "bin/doctl")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func readText(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func runDeploy(dir string, environ ...string) (string, error) {
	cmd := exec.Command("bash", "packages/deploy.sh")
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + filepath.Join(dir, "bin") + ":" + os.Getenv("PATH")}, environ...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
