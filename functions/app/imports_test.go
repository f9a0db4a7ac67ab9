package app

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// graph is who may know whom: for each package of ours, those of ours that its own files import. Tests are free to
// know more, but for what is below test/. Mains know app and what they turn into, which knows what the platforms have
// in common. app knows the packages on a request's way; these know envelope and topology, and not each other, but for
// the drain, which knows the verdicts of its target. metrics, which stands beside app, the operator and the doctor know
// those that they look at.
var graph = map[string][]string{
	"functions":              {},
	"functions/envelope":     {},
	"functions/topology":     {},
	"functions/telemetry":    {},
	"functions/backoff":      {},
	"functions/rabbit":       {"functions/backoff", "functions/envelope"},
	"functions/management":   {},
	"functions/problem":      {},
	"functions/standin":      {"functions/envelope"},
	"functions/httpapi":      {"functions/envelope", "functions/problem"},
	"functions/target":       {"functions/envelope", "functions/problem"},
	"functions/drain":        {"functions/backoff", "functions/envelope", "functions/target"},
	"functions/config":       {"functions/topology"},
	"functions/platform":     {"functions/problem"},
	"functions/digitalocean": {"functions/platform", "functions/problem"},
	"functions/doctor": {"functions/config", "functions/envelope", "functions/httpapi", "functions/management",
		"functions/metrics", "functions/problem", "functions/rabbit", "functions/target", "functions/topology"},
	"functions/awslambda": {"functions/platform", "functions/problem"},
	"functions/app": {
		"functions/config", "functions/drain", "functions/httpapi", "functions/management", "functions/rabbit",
		"functions/target", "functions/telemetry",
	},
	"functions/metrics": {"functions/config", "functions/drain", "functions/httpapi", "functions/management",
		"functions/rabbit"},
	"functions/worker": {
		"functions/app", "functions/config", "functions/drain", "functions/httpapi", "functions/metrics",
		"functions/problem", "functions/rabbit",
	},
	"functions/operator": {
		"functions/config", "functions/drain", "functions/envelope", "functions/management", "functions/rabbit",
	},
	"functions/cmd/fallback": {
		"functions/app", "functions/config", "functions/doctor", "functions/drain", "functions/httpapi",
		"functions/metrics", "functions/operator", "functions/standin", "functions/telemetry",
		"functions/topology", "functions/worker",
	},
	"functions/cmd/lambda":      {"functions/app", "functions/awslambda", "functions/telemetry"},
	"functions/cmd/lambda/pack": {},
	"packages/fallback/drain":   {"functions/app", "functions/digitalocean"},
	"packages/fallback/enqueue": {"functions/app", "functions/digitalocean"},
}

// modules is where each module of others may be imported: by the package's own files, and with " test" by its tests.
// A folder stands for what is below it too. What is nowhere in a program's imports is not in the program.
var modules = map[string][]string{
	"github.com/rabbitmq/amqp091-go":                           {"functions/rabbit", "test"},
	"github.com/sethvargo/go-envconfig":                        {"functions/config"},
	"github.com/spf13/cobra":                                   {"functions/cmd/fallback"},
	"github.com/standard-webhooks/standard-webhooks/libraries": {"functions/httpapi", "functions/target", "test"},
	"github.com/go-json-experiment/json":                       {"functions/envelope"},
	"github.com/hashicorp/golang-lru/v2":                       {"functions/drain"},
	"github.com/go-co-op/gocron/v2":                            {"functions/worker"},
	"github.com/robfig/cron/v3":                                {"functions/config"},
	"github.com/prometheus/client_golang":                      {"functions/metrics"},
	"github.com/prometheus/common":                             {"functions/doctor"},
	"golang.org/x/time": {"functions/httpapi", "functions/drain",
		"functions/standin", "functions/operator", "test/fault"},
	"golang.org/x/sync":                 {"functions/rabbit"},
	"golang.org/x/term":                 {"functions/telemetry", "functions/cmd/fallback"},
	"golang.org/x/sys":                  {"test"},
	"github.com/prometheus/procfs":      {"test"},
	"github.com/schollz/progressbar/v3": {"functions/cmd/fallback"},
	"golang.org/x/crypto/x509roots/fallback": {"functions/cmd/fallback", "functions/cmd/lambda",
		"packages/fallback"},
	"github.com/google/uuid": {"functions/envelope", "functions/httpapi", "functions/rabbit",
		"test"},
	"github.com/aws/aws-lambda-go":    {"functions/awslambda"},
	"github.com/ory/dockertest/v3":    {"test"},
	"github.com/Azure/go-amqp":        {"test"},
	"gopkg.in/yaml.v3":                {"test"},
	"github.com/rogpeppe/go-internal": {"functions/cmd/fallback test"},
	"github.com/google/go-cmp":        {"functions test", "test"},
}

// source is a Go file of the repository.
type source struct {
	dir     string // of its package, with slashes, from the root
	file    string
	test    bool
	imports []string
}

// module is this module's path.
const module = "fallback"

// sources reads the imports of every Go file, whatever its build tags. It parses them here: the test cache sees files
// that a test opens, and not what a `go list` that it starts would read.
func sources(t *testing.T, tops ...string) []source {
	t.Helper()
	root := filepath.Join("..", "..")
	var all []source
	for _, top := range tops {
		err := filepath.WalkDir(filepath.Join(root, top), func(name string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && (entry.Name() == "testdata" || strings.HasPrefix(entry.Name(), ".")):
				return fs.SkipDir
			case entry.IsDir() || !strings.HasSuffix(name, ".go"):
				return nil
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			relative, err := filepath.Rel(root, name)
			if err != nil {
				return err
			}
			s := source{file: filepath.ToSlash(relative), test: strings.HasSuffix(name, "_test.go")}
			s.dir = path.Dir(s.file)
			for _, spec := range parsed.Imports {
				imported, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					return err
				}
				s.imports = append(s.imports, imported)
			}
			all = append(all, s)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(all) == 0 {
		t.Fatalf("there is no Go in %s", tops)
	}
	return all
}

// ours is the folder of a package of this module.
func ours(imported string) (dir string, ok bool) {
	if imported == module {
		return ".", true
	}
	return strings.CutPrefix(imported, module+"/")
}

// TestGraph holds that the table and the sources say the same: a package or an arrow that is missing from either is a
// fault.
func TestGraph(t *testing.T) {
	t.Parallel()
	got := map[string]map[string]string{} // package, import, file that has it
	for _, s := range sources(t, "functions", "packages") {
		if s.test {
			continue
		}
		if got[s.dir] == nil {
			got[s.dir] = map[string]string{}
		}
		for _, imported := range s.imports {
			if dir, ok := ours(imported); ok {
				got[s.dir][dir] = s.file
			}
		}
	}
	for dir, imports := range got {
		allowed, known := graph[dir]
		if !known {
			t.Errorf("package %s is not in the table", dir)
			continue
		}
		for imported, file := range imports {
			if !slices.Contains(allowed, imported) {
				t.Errorf("%s imports %s: the table does not let %s know it", file, imported, dir)
			}
		}
	}
	for dir, allowed := range graph {
		if got[dir] == nil {
			t.Errorf("the table has package %s, which does not exist", dir)
		}
		for _, imported := range allowed {
			if _, used := got[dir][imported]; !used && got[dir] != nil {
				t.Errorf("the table lets %s import %s, which it does not", dir, imported)
			}
		}
	}
}

// TestNothingKnowsTests holds that no program, and no test beside it, depends on what is below test/.
func TestNothingKnowsTests(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t, "functions", "packages") {
		for _, imported := range s.imports {
			if dir, ok := ours(imported); ok && (dir == "test" || strings.HasPrefix(dir, "test/")) {
				t.Errorf("%s imports %s", s.file, imported)
			}
		}
	}
}

// TestModules holds where the modules of others are used, so that no function links what only a command needs.
func TestModules(t *testing.T) {
	t.Parallel()
	used := map[string]map[string]bool{} // module, entry of the table
	for _, s := range sources(t, "functions", "packages", "test") {
		for _, imported := range s.imports {
			if _, ok := ours(imported); ok || isStandard(imported) {
				continue
			}
			name := moduleOf(imported)
			if name == "" {
				t.Errorf("%s imports %s: its module is not in the table", s.file, imported)
				continue
			}
			place := placeOf(s, modules[name])
			if place == "" {
				t.Errorf("%s imports %s, which is for %s", s.file, imported, strings.Join(modules[name], ", "))
				continue
			}
			if used[name] == nil {
				used[name] = map[string]bool{}
			}
			if !s.test || strings.HasSuffix(place, " test") || strings.HasPrefix(place, "test") {
				used[name][place] = true // an entry for programs must be used by one
			}
		}
	}
	for name, places := range modules {
		for _, place := range places {
			if !used[name][place] {
				t.Errorf("the table lets %s import %s, which it does not", place, name)
			}
		}
	}
}

// notInFunctions is what only a program that stays needs: a command line, a scheduler, a metrics server.
var notInFunctions = []string{
	"github.com/spf13/cobra", "github.com/go-co-op/gocron/v2", "github.com/prometheus/client_golang",
	"github.com/schollz/progressbar/v3",
}

// TestFunctionsLink holds that nothing which a function imports, however far down, imports one of these: Go links by
// package, so one import would put all of it into every function.
func TestFunctionsLink(t *testing.T) {
	t.Parallel()
	imports := map[string][]string{} // by package
	for _, s := range sources(t, "functions", "packages") {
		if !s.test {
			imports[s.dir] = append(imports[s.dir], s.imports...)
		}
	}
	functions := 0
	for dir := range imports {
		if !strings.HasPrefix(dir, "packages/") {
			continue
		}
		functions++
		seen, todo := map[string]bool{}, []string{dir}
		for len(todo) > 0 {
			at := todo[0]
			todo = todo[1:]
			for _, imported := range imports[at] {
				if slices.Contains(notInFunctions, moduleOf(imported)) {
					t.Errorf("%s links %s, through %s", dir, imported, at)
				}
				if next, ok := ours(imported); ok && !seen[next] {
					seen[next] = true
					todo = append(todo, next)
				}
			}
		}
		if !seen["functions/app"] {
			t.Errorf("%s was not followed to what it links", dir)
		}
	}
	if functions == 0 {
		t.Error("there are no functions")
	}
}

// isStandard says whether a path is one of the standard library's, which has no dot in its first part.
func isStandard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".")
}

func moduleOf(imported string) string {
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		if imported == name || strings.HasPrefix(imported, name+"/") {
			return name
		}
	}
	return ""
}

// placeOf is the entry that allows a file its import, "" if there is none. A package's tests may import what it
// imports.
func placeOf(s source, places []string) string {
	for _, place := range places {
		dir, test := strings.CutSuffix(place, " test")
		if (s.dir == dir || strings.HasPrefix(s.dir, dir+"/")) && (s.test || !test) {
			return place
		}
	}
	return ""
}
