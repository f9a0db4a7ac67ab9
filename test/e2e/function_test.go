//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"debug/elf"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"fallback/test/corpus"
	"fallback/test/deploy"
	"fallback/test/harness"
)

// buildFunctions runs each function's build.sh as the deployer does, and returns the one file of each that is uploaded.
var buildFunctions = sync.OnceValues(func() (programs map[string]string, err error) {
	scripts, err := filepath.Glob(filepath.Join(harness.Root(), "packages", "fallback", "*", "build.sh"))
	if err != nil {
		return nil, err
	}
	programs = map[string]string{}
	for _, script := range scripts {
		if _, err := harness.Run(harness.Patience, script); err != nil {
			return nil, err
		}
		folder := filepath.Dir(script)
		programs[filepath.Base(folder)] = filepath.Join(folder, "exec")
	}
	return programs, nil
})

// deployFunction deploys one of the functions, until the test ends. Nothing but what the platform allows for may then
// have been left behind.
func deployFunction(t *testing.T, name string, config deploy.Config) *deploy.Function {
	t.Helper()
	programs, err := buildFunctions()
	if err != nil {
		t.Fatal(err)
	}
	config.Name, config.Exec, config.Extra = "fallback/"+name, programs[name], harness.Slack
	f, err := deploy.Start(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("the function ended with %v", err)
		}
		if t.Failed() {
			t.Logf("the function's log:\n%s", f.Logs())
		}
	})
	return f
}

// onDigitalOcean is the function behind the platform's web gateway.
var onDigitalOcean = place{
	name: "DigitalOcean Function",
	deploy: func(t *testing.T, amqpURL string, limit time.Duration) *door {
		t.Helper()
		// A limit on bodies that leaves the platform's own as the one that is met.
		env := map[string]string{"AMQP_SERVER_URL": amqpURL, "FALLBACK_TIMEOUT": "5s",
			"FALLBACK_MAX_BODY_BYTES": "1048576"}
		f := deployFunction(t, "enqueue", deploy.Config{Env: env, Timeout: limit})
		server := httptest.NewServer(f)
		t.Cleanup(server.Close)
		return &door{f, server.URL, f.Route()}
	},
	id: "x-request-id", idForm: regexp.MustCompile(`^[0-9a-f]{32}$`),
	own:   map[string]string{"x-forwarded-proto": "https"},
	joint: ", ", cookieJoint: ", ",
	isText: func(in corpus.Request) bool { // whatever its charset is
		return strings.HasPrefix(strings.Join(in.Values("Content-Type"), ""), "text/")
	},
	bodies: []body{
		{"900 KB", "text/plain", bytes.Repeat([]byte("0123456789"), 90_000)},
	},
	tooLarge:        body{"1 MiB as base64", "application/octet-stream", make([]byte, 1<<20)},
	refusesMebibyte: true,
	events: []oddEvent{
		{"no http: a trigger that keeps warm", `{"ping":true}`, http.StatusOK, ""},
		{"empty", `{}`, http.StatusOK, ""},
		{"http of the wrong shape", `{"http":5}`, http.StatusInternalServerError, ""},
		{"header of the wrong shape", `{"http":{"method":"POST","headers":{"a":1}}}`, http.StatusInternalServerError,
			""},
		{"body that is not base64", `{"http":{"method":"POST","body":"%","isBase64Encoded":true}}`,
			http.StatusInternalServerError, ""},
		{"method in lower case", `{"http":{"method":"post","path":"orders","body":"x"}}`, http.StatusAccepted, ""},
		{"path that was decoded", `{"http":{"method":"POST","path":"/a b\nc","body":"x"}}`, http.StatusAccepted, ""},
		{"not queued", `{"http":{"method":"GET","path":""}}`, http.StatusServiceUnavailable, ""},
	},
}

func TestFunctionsAreSmallStaticFiles(t *testing.T) {
	t.Parallel()
	programs, err := buildFunctions()
	if err != nil || len(programs) != 2 {
		t.Fatalf("%d functions: %v", len(programs), err)
	}
	for name, file := range programs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			checkProgram(t, program, elf.EM_X86_64)
		})
	}
}
