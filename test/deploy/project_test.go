package deploy_test

import (
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	settings "fallback/functions/config"
	"fallback/functions/drain"
	"fallback/functions/topology"
	"fallback/test/deploy"
)

const root = "../.."

func TestTheProjectCanBeDeployed(t *testing.T) {
	t.Parallel()
	for _, fault := range deploy.CheckProject(root) {
		t.Error(fault)
	}
}

// functionsOf reads the functions of a project.yml.
func functionsOf(t *testing.T, yml []byte) (functions map[string]function) {
	t.Helper()
	var project struct {
		Packages []struct{ Functions []function }
	}
	if err := yaml.Unmarshal(yml, &project); err != nil {
		t.Fatal(err)
	}
	functions = map[string]function{}
	for _, pkg := range project.Packages {
		for _, f := range pkg.Functions {
			functions[f.Name] = f
		}
	}
	return functions
}

type function struct {
	Name        string
	Web         any
	Environment map[string]string
	Limits      struct{ Timeout int }
	Triggers    []struct {
		ScheduledDetails struct{ Cron string } `yaml:"scheduledDetails"`
	}
}

func readProject(t *testing.T) []byte {
	t.Helper()
	yml, err := os.ReadFile(filepath.Join(root, "project.yml"))
	if err != nil {
		t.Fatal(err)
	}
	return yml
}

// The project is deployed without a trigger, which not every account may have. With it, the drain is called, and
// nothing else; no call comes before the last one has run into its limit; and within that a run has time for the
// slowest answer.
func TestTheDrainHasItsTriggerReady(t *testing.T) {
	t.Parallel()
	yml := readProject(t)
	for name, f := range functionsOf(t, yml) {
		if len(f.Triggers) > 0 {
			t.Errorf("as shipped, %s has a trigger", name)
		}
	}
	for name, f := range functionsOf(t, deploy.WithTriggers(yml)) {
		if got, want := len(f.Triggers) > 0, name == "drain"; got != want {
			t.Errorf("with its triggers, %s has one: %v, want %v", name, got, want)
		}
	}
	d := functionsOf(t, deploy.WithTriggers(yml))["drain"]
	if d.Web != false {
		t.Errorf("web: %v: strangers could start a drain", d.Web)
	}
	limit := time.Duration(d.Limits.Timeout) * time.Millisecond
	for _, trigger := range d.Triggers {
		minutes, _, _ := strings.Cut(strings.TrimPrefix(trigger.ScheduledDetails.Cron, "*/"), " ")
		if every, err := time.ParseDuration(minutes + "m"); err != nil || limit >= every {
			t.Errorf("a run may take %s, and is called for by %q (%v)", limit, trigger.ScheduledDetails.Cron, err)
		}
	}
	defaults, err := settings.Load(func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	if least := drain.Grace + 2*defaults.TargetTimeout; limit < least {
		t.Errorf("the limit is %s, want %s or more", limit, least)
	}
}

// What a function finds in its environment is a setting, and each user of the broker goes where it may do its work.
func TestTheEnvironmentIsOfSettings(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, s := range settings.Settings() {
		known[s.Name] = true
	}
	functions := functionsOf(t, readProject(t))
	for name, f := range functions {
		for variable := range f.Environment {
			if !known[variable] {
				t.Errorf("%s: %s is no setting", name, variable)
			}
		}
	}
	example, err := os.ReadFile(filepath.Join(root, ".env.example"))
	if err != nil {
		t.Fatal(err)
	}
	for name, user := range map[string]string{"enqueue": topology.Publisher, "drain": topology.Drainer} {
		variable := strings.Trim(functions[name].Environment["AMQP_SERVER_URL"], "${}")
		if !strings.Contains(string(example), "\n"+variable+"=\"amqps://"+user+":") {
			t.Errorf("%s: %q is not the URL of %s in .env.example", name, variable, user)
		}
	}
}

// A body of FALLBACK_MAX_BODY_BYTES must fit into an event in base64, beside the largest headers that are accepted and
// a long URL. Otherwise the platform would refuse what we promise to take.
func TestTheBodyLimitFitsTheEvent(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile(filepath.Join(root, ".env.example"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(example), "\nFALLBACK_MAX_BODY_BYTES=\"")
	value, _, _ := strings.Cut(after, `"`)
	limit, err := strconv.Atoi(value)
	if err != nil {
		t.Fatal(err)
	}
	const event, headers, rest = 1 << 20, 64 << 10, 16 << 10
	if need := base64.StdEncoding.EncodedLen(limit) + headers + rest; need > event {
		t.Errorf("a body of %d bytes needs an event of %d, more than %d", limit, need, event)
	}
}

// goodProject is a project without a fault, for the variations to spoil.
var goodProject = map[string]string{
	"project.yml": `# ${QUEUE} in a comment is replaced too
parameters: {}
packages:
  - name: fallback
    shared: false
    environment: {}
    functions:
      - name: enqueue
        runtime: go:default
        main: ''
        binary: true
        localBuild: true
        web: raw
        webSecure: false
        annotations: {description: "enqueues"}
        parameters: {}
        environment:
          QUEUE: "${QUEUE}"
          URL: "amqps://${QUEUE}@h/"
          LITERAL: "1"
        limits:
          timeout: 15000
          memory: 256
          logs: 64
#trigger#         triggers:
#trigger#           - name: keep-warm
#trigger#             type: SCHEDULED
#trigger#             enabled: true
#trigger#             scheduledDetails: {cron: "*/5 0-6,12 * * 1", body: {ping: true}}
      - name: drain
        runtime: go:default
        localBuild: true
        web: false
        limits: {timeout: 600000}
`,
	".env.example":                       "# comment\nQUEUE=\"Q#1\" # why\nexport UNUSED=\nOTHER=a\n",
	"packages/fallback/enqueue/build.sh": "#!/bin/bash\n",
	"packages/fallback/enqueue/.include": "exec\n",
	"packages/fallback/enqueue/main.go":  "package main\n",
	"packages/fallback/drain/build.sh":   "#!/bin/bash\n",
	"packages/fallback/drain/.include":   "exec",
	"packages/README.md":                 "passed over\n",
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	mode := os.FileMode(0o644)
	if strings.HasSuffix(name, ".sh") {
		mode = 0o755
	}
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func goodCopy(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range goodProject {
		write(t, dir, name, text)
	}
	return dir
}

func TestAGoodProjectHasNoFault(t *testing.T) {
	t.Parallel()
	for _, fault := range deploy.CheckProject(goodCopy(t)) {
		t.Error(fault)
	}
}

// Each variation of the good document is refused, with the words for its fault.
func TestABadDocumentIsRefused(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, old, new, want string }{
		{"tab", "runtime: go:default\n        main", "runtime:\tgo:default\n        main", "tabs"},
		{"not yaml", "packages:\n", "packages: {\n", "yaml: "},
		{"key twice", "        web: raw\n", "        web: raw\n        web: raw\n", "already defined"},
		{"unknown key at the top", "parameters: {}\npackages", "targetNamespace: x\npackages",
			"top level: unknown key targetNamespace"},
		{"unknown key of a package", "    shared: false\n", "    clean: true\n", "package fallback: unknown key clean"},
		{"unknown key of a function", "        main: ''\n", "        docker: x\n",
			"function enqueue: unknown key docker"},
		{"unknown limit", "          logs: 64\n", "          concurrency: 1\n",
			"function enqueue limits: unknown key concurrency"},
		{"no packages", "packages:\n", "functions:\n", "packages: want a list"},
		{"package twice", "  - name: fallback\n", "  - {name: fallback, functions: []}\n  - name: fallback\n",
			"package fallback: is there twice"},
		{"function twice", "      - name: drain\n",
			"      - {name: drain, runtime: go:default, localBuild: true, web: false, limits: {timeout: 1}}\n      - " +
				"name: drain\n", "function drain: is there twice"},
		{"function without a name", "      - name: drain\n        runtime", "      - runtime",
			"package fallback function 2: want a name"},
		{"parameters for the package default", "  - name: fallback\n",
			"  - {name: default, parameters: {a: 1}, functions: []}\n  - name: fallback\n",
			"parameters cannot be set for the package default"},

		{"number in the environment", `LITERAL: "1"`, `LITERAL: 1`, "environment LITERAL: 1 is not a string"},
		{"boolean in the environment", `LITERAL: "1"`, `LITERAL: true`, "environment LITERAL: true is not a string"},
		{"nothing in the environment", `LITERAL: "1"`, `LITERAL:`, "environment LITERAL: <nil> is not a string"},
		{"number in a package's environment", "    environment: {}\n", "    environment: {A: 1}\n",
			"package fallback: environment A: 1 is not a string"},
		{"number in the project's environment", "parameters: {}\npackages", "environment: {A: 1}\npackages",
			"top level: environment A: 1 is not a string"},
		{"environment that is a list", "    environment: {}\n", "    environment: []\n",
			"package fallback environment: want a mapping"},
		{"variable without quotes", `QUEUE: "${QUEUE}"`, `QUEUE: ${QUEUE}`,
			"project.yml:18: put double quotes around ${QUEUE}"},
		{"variable in single quotes", `QUEUE: "${QUEUE}"`, `QUEUE: '${QUEUE}'`, "put double quotes around ${QUEUE}"},
		{"variable nobody lists", `QUEUE: "${QUEUE}"`, `QUEUE: "${QUEUES}"`, "${QUEUES} has no value in .env.example"},
		{"variable with an empty value", `QUEUE: "${QUEUE}"`, `QUEUE: "${UNUSED}"`,
			"${UNUSED} has no value in .env.example"},
		{"variable in a comment", "# ${QUEUE} in", "# ${HOST} in", "${HOST} has no value in .env.example"},
		{"file in place of a variable", `QUEUE: "${QUEUE}"`, `QUEUE: "${<file}"`, "only ${NAME} is used here"},
		{"dictionary of variables", `QUEUE: "${QUEUE}"`, `QUEUE: "$(QUEUE OTHER)"`, "only ${NAME} is used here"},

		{"another language", "runtime: go:default\n        main", "runtime: python:3.11\n        main",
			"runtime python:3.11: want go:default"},
		{"a Go that may be retired", "runtime: go:default\n        main", "runtime: go:1.25\n        main",
			"runtime go:1.25: want go:default"},
		{"a Go that is not there", "runtime: go:default\n        main", "runtime: go:1.26\n        main",
			"runtime go:1.26: want go:default"},
		{"no runtime", "        runtime: go:default\n        main", "        main", "runtime <nil>: want go:default"},
		{"web true", "web: raw", "web: true", "want web: raw"},
		{"web as a string", "web: raw", `web: "false"`, "want web: raw"},
		{"web not said", "        web: raw\n", "", "want web: raw"},
		{"web false for all", "web: raw", "web: false", "HTTP reaches nothing"},
		{"no local build", "        localBuild: true\n        web: raw", "        web: raw", "want localBuild: true"},
		{"local build as a string", "        localBuild: true\n        web: raw",
			"        localBuild: \"true\"\n        web: raw", "want localBuild: true"},
		{"remote build", "        web: raw\n", "        web: raw\n        remoteBuild: true\n", "no remoteBuild"},
		{"binary as a string", "binary: true", `binary: "true"`, "binary: want true or false"},
		{"main as a number", "main: ''", `main: 1`, "main: want a string"},
		{"webSecure true", "webSecure: false", "webSecure: true", "webSecure: want a string"},
		{"annotation of the platform's own", `{description: "enqueues"}`, `{raw-http: true}`,
			"annotation raw-http is set by web: raw"},
		{"timeout at the web limit", "timeout: 15000", "timeout: 30000",
			"timeout: 30000 is not a number from 1 to 29999"},
		{"timeout as a string", "timeout: 15000", `timeout: "15000"`, "timeout: 15000 is not a number"},
		{"no timeout", "          timeout: 15000\n", "", "timeout: <nil> is not a number"},
		{"no limits", "        limits: {timeout: 600000}\n", "", "limits: want a mapping"},
		{"timeout at the platform's limit", "600000", "900001", "timeout: 900001 is not a number from 1 to 900000"},
		{"too much memory", "memory: 256", "memory: 2048", "memory: 2048 is not a number from 128 to 1024"},

		{"trigger of another type", "SCHEDULED", "CRON",
			"with its triggers, project.yml: trigger keep-warm: type CRON is not SCHEDULED"},
		{"trigger with seconds", "*/5 0-6,12 * * 1", "0 */5 * * * *", `cron 0 */5 * * * * is not five fields`},
		{"trigger with a name of a day", "*/5 0-6,12 * * 1", "*/5 * * * MON", `is not five fields`},
		{"trigger out of range", "*/5 0-6,12 * * 1", "60 * * * *", `is not five fields`},
		{"trigger with a range that goes back", "*/5 0-6,12 * * 1", "* 6-0 * * *", `is not five fields`},
		{"trigger with an empty step", "*/5 0-6,12 * * 1", "*/ * * * *", `is not five fields`},
		{"trigger with a zero step", "*/5 0-6,12 * * 1", "*/0 * * * *", `is not five fields`},
		{"trigger in the old form", "type: SCHEDULED", "sourceType: scheduler",
			"trigger keep-warm: unknown key sourceType"},
		{"trigger with withBody", "body: {ping", "withBody: {ping", "scheduledDetails: unknown key withBody"},
		{"trigger with a body that is none", "body: {ping: true}", "body: ping", "body: want a mapping"},
		{"trigger enabled as a string", "enabled: true", `enabled: "true"`, "enabled: want true or false"},
		{"trigger without a name", "          - name: keep-warm\n#trigger#             type", "          - type",
			"trigger 1: want a name"},
		{"trigger name twice", "#trigger#         triggers:\n",
			"#trigger#         triggers:\n#trigger#           - {name: keep-warm, type: SCHEDULED, enabled: true, " +
				"scheduledDetails: {cron: \"1 1 1 1 1\"}}\n", "used twice"},
		{"trigger with a variable", "{ping: true}", `{ping: "${PING}"}`, "${PING} has no value"},
		{"trigger that is not yaml", "#trigger#             type", "#trigger#         type",
			"with its triggers, project.yml: yaml"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			yml := strings.Replace(goodProject["project.yml"], row.old, row.new, 1)
			if yml == goodProject["project.yml"] {
				t.Fatal("nothing was varied")
			}
			dir := goodCopy(t)
			write(t, dir, "project.yml", yml)
			expectFault(t, dir, row.want)
		})
	}
}

func expectFault(t *testing.T, dir, want string) {
	t.Helper()
	if got := errors.Join(deploy.CheckProject(dir)...); got == nil || !strings.Contains(got.Error(), want) {
		t.Errorf("got %v, want %q", got, want)
	}
}

// Each variation of the good files is refused, with the words for its fault.
func TestBadFilesAreRefused(t *testing.T) {
	t.Parallel()
	put := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { write(t, dir, name, text) }
	}
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	chmod := func(name string, mode os.FileMode) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	const enqueue = "packages/fallback/enqueue"
	for _, row := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		want  string
	}{
		{"no project.yml", remove("project.yml"), "project.yml: no such file"},
		{"empty project.yml", put("project.yml", ""), "top level: want a mapping"},
		{"no .env.example", remove(".env.example"), ".env.example: no such file"},
		{"no packages", remove("packages"), "packages: no such file"},
		{"stray file", put("packages/fallback/README.md", "hello"),
			"packages/fallback/README.md: the deployer takes each file here for a function"},
		{"folder without a function", put("packages/fallback/other/build.sh", ""),
			"packages/fallback/other: not in project.yml"},
		{"package without an entry", put("packages/other/fn/build.sh", ""), "packages/other/fn: not in project.yml"},
		{"function without a folder", remove(enqueue), "function enqueue has no folder packages/fallback/enqueue"},
		{"no build.sh", remove(enqueue + "/build.sh"), "without a build script the platform builds"},
		{"build.sh not executable", chmod(enqueue+"/build.sh", 0o644), enqueue + "/build.sh: mode -rw-r--r--"},
		{"build.sh executable for its owner only", chmod(enqueue+"/build.sh", 0o744), "want an executable file"},
		{"no .include", remove(enqueue + "/.include"), "without .include the sources are uploaded too"},
		{".include of something else", put(enqueue+"/.include", "main.go\n"),
			`.include: got "main.go\n", want only exec`},
		{".include of more", put(enqueue+"/.include", "exec\nREADME.md\n"), "want only exec"},
		{".include from outside", put(enqueue+"/.include", "../../../functions\n"), "want only exec"},
		{"empty .include", put(enqueue+"/.include", ""), "want only exec"},
		{".ignore", put(enqueue+"/.ignore", "x"), ".ignore: the deployer refuses it"},
		{"variable missing in .env.example", put(".env.example", "OTHER=a\n"), "${QUEUE} has no value in .env.example"},
		{"variable empty in .env.example", put(".env.example", "QUEUE=\"\"\n"),
			"${QUEUE} has no value in .env.example"},
		{"variable only in a comment", put(".env.example", "# QUEUE=a\n"), "${QUEUE} has no value in .env.example"},
		{"value with a backslash", put(".env.example", `QUEUE="a\b"`), "the value of QUEUE would change project.yml"},
		{"value with a quote", put(".env.example", `QUEUE='a"b'`), "the value of QUEUE would change project.yml"},
		{"value cut at a #", put(".env.example", "QUEUE=a#b\n"), ".env.example:1: doctl takes #b for a comment"},
		{"value with a $", put(".env.example", "QUEUE=\"a$b\"\n"), ".env.example:1: compose replaces what follows $"},
		{"value with half a quote", put(".env.example", "\nQUEUE=\"a\n"),
			".env.example:2: the quotes of QUEUE do not match"},
		{"line that sets nothing", put(".env.example", "QUEUE=a\nQUEUE\n"), ".env.example:2: not NAME=value"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := goodCopy(t)
			row.spoil(t, dir)
			expectFault(t, dir, row.want)
		})
	}
}

func TestGitMustKnowThatTheScriptRuns(t *testing.T) {
	t.Parallel()
	dir := goodCopy(t)
	const script = "packages/fallback/enqueue/build.sh"
	git(t, dir, "init", "--quiet")
	git(t, dir, "add", "--chmod=-x", script)
	expectFault(t, dir, script+": git has it with mode 100644, want 100755")

	git(t, dir, "add", "--chmod=+x", script)
	for _, fault := range deploy.CheckProject(dir) {
		t.Error(fault)
	}
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir}, args...)...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GIT_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

func TestWithTriggers(t *testing.T) {
	t.Parallel()
	off := "a: 1\n#trigger# b:\n#trigger#   - c\n  #trigger# d\n#trigger\n#triggers# e\n#trigger# f"
	want := "a: 1\nb:\n  - c\n  #trigger# d\n#trigger\n#triggers# e\nf"
	if got := string(deploy.WithTriggers([]byte(off))); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The scripts fail on a machine where they cannot work with a sentence that says why.
func TestBuildScriptsSayWhatIsMissing(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob(filepath.Join(root, "packages/*/*/build.sh"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no build scripts: %v", err)
	}
	shared, err := os.ReadFile(filepath.Join(root, "packages/build.sh"))
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		write(t, dir, "packages/p/f/build.sh", string(text))
		write(t, dir, "packages/build.sh", string(shared))
		if got, want := runScript(t, dir), "build.sh: no go.mod"; !strings.Contains(got, want) {
			t.Errorf("%s without go.mod: got %q, want %q", script, got, want)
		}
		write(t, dir, "go.mod", "module m\n")
		if got, want := runScript(t, dir), "build.sh: go is not on the PATH"; !strings.Contains(got, want) {
			t.Errorf("%s without go: got %q, want %q", script, got, want)
		}
	}
}

// runScript runs a script that must fail, on a PATH that has bash and dirname and no go.
func runScript(t *testing.T, dir string) string {
	t.Helper()
	bin := t.TempDir()
	for _, tool := range []string{"bash", "dirname"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(bin, "bash"), filepath.Join(dir, "packages/p/f/build.sh"))
	cmd.Env = []string{"PATH=" + bin}
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Errorf("it succeeded: %s", out)
	}
	return string(out)
}
