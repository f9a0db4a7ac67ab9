//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"fallback/test/harness"
)

// TestREADMEExamples types the README's curl examples as they stand and compares with the README's own answers, but for
// what is different each time.
func TestREADMEExamples(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	server.WaitReady(t)
	examples := curlExamples(readme(t))
	if len(examples) < 3 {
		t.Fatalf("found %d curl examples in the README", len(examples))
	}
	for _, e := range examples {
		command := strings.Replace(e.command, "curl ", "curl --silent --show-error --max-time 10 ", 1)
		command = strings.ReplaceAll(command, "http://127.0.0.1:8080", server.URL)
		out, err := harness.Run(harness.Patience, "sh", "-c", command)
		if err != nil {
			t.Fatal(err)
		}
		got, want := normalize(out), normalize(e.answer)
		if got != want {
			t.Errorf("$ %s\ngot:\n%s\nthe README has:\n%s", e.command, got, want)
		}
	}
}

// example is a command of the README and the answer that it shows.
type example struct{ command, answer string }

// curlExamples are the curl commands in the README's console blocks.
func curlExamples(text string) []example {
	var found []example
	for _, block := range consoleBlocks(text) {
		for _, part := range block {
			command, answer, _ := strings.Cut(part, "\n")
			if strings.HasPrefix(command, "curl ") {
				found = append(found, example{command, answer})
			}
		}
	}
	return found
}

func readme(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(harness.Root(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// consoleBlocks are those of a text, each cut into its commands with the answers that follow them.
func consoleBlocks(text string) (blocks [][]string) {
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(text, -1) {
		blocks = append(blocks, strings.Split("\n"+block[1], "\n$ ")[1:])
	}
	return blocks
}

// eachTime is what no two answers share.
var eachTime = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`(?m)^Date: .*$`), "Date: DATE"},
	// the time's trailing zeros are left out
	{regexp.MustCompile(`(?m)^Content-Length: 1[12]\d$`), "Content-Length: N"},
}

func normalize(answer string) string {
	answer = strings.ReplaceAll(answer, "\r\n", "\n")
	for _, e := range eachTime {
		answer = e.pattern.ReplaceAllString(answer, e.with)
	}
	return strings.TrimSpace(answer)
}
