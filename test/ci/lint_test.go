//go:build e2e

package ci

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"fallback/test/harness"
)

// database is one with a vulnerability of a function of the standard library's net/url.
func database(t *testing.T, function string) string {
	t.Helper()
	const id, day = "GO-2020-0001", "2020-01-01T00:00:00Z"
	dir := t.TempDir()
	for name, value := range map[string]any{
		"index/db.json":    map[string]any{"modified": day},
		"index/vulns.json": []any{map[string]any{"id": id, "modified": day}},
		"index/modules.json": []any{map[string]any{"path": "stdlib",
			"vulns": []any{map[string]any{"id": id, "modified": day}}}},
		"ID/" + id + ".json": map[string]any{
			"schema_version": "1.3.1", "id": id, "modified": day, "published": day, "summary": "a hole in net/url",
			"database_specific": map[string]any{"url": "https://example.com"},
			"affected": []any{map[string]any{
				"package": map[string]any{"name": "stdlib", "ecosystem": "Go"},
				"ranges": []any{map[string]any{"type": "SEMVER",
					"events": []any{map[string]any{"introduced": "0"}}}},
				"ecosystem_specific": map[string]any{"imports": []any{map[string]any{"path": "net/url",
					"symbols": []string{function}}}},
			}},
		},
	} {
		raw, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), string(raw))
	}
	return "file://" + dir
}

// proxies are two: one that refuses every connection, and one that takes them and says nothing.
func proxies(t *testing.T) (closed, silent string) {
	t.Helper()
	var urls []string
	for range 2 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		urls = append(urls, "http://"+ln.Addr().String())
		if len(urls) == 1 {
			_ = ln.Close()
		}
	}
	return urls[0], urls[1]
}

// TestVulnerabilities holds that what is called fails CI and is named, what is not called does not, and that a
// database out of reach is no failure, but is said.
func TestVulnerabilities(t *testing.T) {
	dir := project(t, map[string]string{
		"go.mod":  "module p\n\ngo 1.25\n",
		"main.go": "package main\n\nimport \"net/url\"\n\nfunc main() { _, _ = url.Parse(\"\") }\n",
	}, "vulnerabilities.sh", "tools.mod", "tools.sum")
	closed, silent := proxies(t)
	const unreached = `^vulnerabilities: not looked for, their database cannot be reached: `
	for _, row := range []struct {
		name, setting, seconds string
		code                   int
		want                   string
	}{
		{"called", "VULNDB=" + database(t, "Parse"), "300", 1, `(?s)GO-2020-0001.*a hole in net/url.*main\.go:5`},
		{"not called", "VULNDB=" + database(t, "JoinPath"), "300", 0, `^$`},
		{"no such copy", "VULNDB=file:///nowhere", "300", 1, `nowhere`},
		{"out of reach", "HTTPS_PROXY=" + closed, "300", 0, unreached + `.*connection refused\n$`},
		{"silent", "HTTPS_PROXY=" + silent, "5", 0, unreached + `no answer within 5 s\n$`},
	} {
		t.Run(row.name, func(t *testing.T) {
			said, code := run(t, dir, "env", "NO_PROXY=", row.setting, ".ci/vulnerabilities.sh", row.seconds)
			if code != row.code || !regexp.MustCompile(row.want).MatchString(said) {
				t.Errorf("ended with %d:\n%s", code, said)
			}
		})
	}
}

// TestToolsChooseNothing holds that no tool that CI runs is in the product's module.
func TestToolsChooseNothing(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"go.mod", "go.sum"} {
		raw, err := os.ReadFile(filepath.Join(harness.Root(), name))
		if err != nil {
			t.Fatal(err)
		}
		for _, tool := range []string{"honnef.co/go/tools", "golang.org/x/vuln"} {
			if strings.Contains(string(raw), tool) {
				t.Errorf("%s has %s", name, tool)
			}
		}
	}
}
