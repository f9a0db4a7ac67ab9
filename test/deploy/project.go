package deploy

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// CheckProject reads what `doctl serverless deploy` would read below root, and returns all that its deployer refuses
// or would silently get wrong, in no order to rely on: project.yml with the variables of .env.example put in,
// packages/, and project.yml once more WithTriggers, if it has any that are switched off.
//
// Its rules are those of digitalocean/functions-deployer 5.0.19 (d11b2b6), the newest whose source is public; doctl
// asks for 5.0.22. `doctl serverless get-metadata .` at the root has the real one read the same files, and `doctl
// serverless deploy .` with an account. There are a few of this project's own, too: functions are built on the
// deploying machine into one file called exec, and what answers HTTP takes the raw request and is done before the
// platform answers in its place.
func CheckProject(root string) []error {
	yml, err := os.ReadFile(filepath.Join(root, "project.yml"))
	if err != nil {
		return []error{err}
	}
	env, faults := readEnvExample(filepath.Join(root, ".env.example"))
	project, more := checkDocument(yml, env)
	faults = append(faults, more...)
	faults = append(faults, checkPackages(root, project)...)
	return append(faults, checkTriggersOn(yml, env, faults)...)
}

// triggerMark starts the lines of project.yml that WithTriggers switches on.
const triggerMark = "#trigger# "

// WithTriggers takes the mark "#trigger# " from the lines that start with it; the rest of such a line, its indentation
// included, is part of the document. So a schedule can be delivered switched off, which most accounts need, and yet be
// checked:
//
//	        limits: {timeout: 15000}
//	#trigger#         triggers:
//	#trigger#           - {name: keep-warm, type: SCHEDULED, enabled: true, scheduledDetails: {cron: "*/5 * * * *"}}
func WithTriggers(yml []byte) []byte {
	lines := strings.SplitAfter(string(yml), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, triggerMark)
	}
	return []byte(strings.Join(lines, ""))
}

// checkTriggersOn returns what is wrong only with the triggers.
func checkTriggersOn(yml []byte, env map[string]string, known []error) []error {
	var faults []error
	_, found := checkDocument(WithTriggers(yml), env)
	for _, fault := range found {
		isKnown := slices.ContainsFunc(known, func(k error) bool { return k.Error() == fault.Error() })
		if !isKnown {
			faults = append(faults, fmt.Errorf("with its triggers, %w", fault))
		}
	}
	return faults
}

// checkDocument checks the text of project.yml, and returns the packages in it with their functions.
func checkDocument(yml []byte, env map[string]string) (project map[string][]string, faults []error) {
	if strings.Contains(string(yml), "\t") {
		faults = append(faults, errors.New("project.yml: the deployer refuses tabs"))
	}
	faults = append(faults, checkQuotes(yml)...)
	text, more := substitute(string(yml), env)
	faults = append(faults, more...)
	var document any
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		return nil, append(faults, fmt.Errorf("project.yml: %w", err))
	}
	s := &schema{triggers: map[string]bool{}}
	project = s.project(document)
	return project, append(faults, s.faults...)
}

var placeholder = regexp.MustCompile(`\$\{([^}]*)\}|\$\(`)

// substitute puts the variables in as the deployer does: in the text, comments included, before it is read as YAML. An
// empty variable counts as missing.
func substitute(text string, env map[string]string) (string, []error) {
	var faults []error
	text = placeholder.ReplaceAllStringFunc(text, func(found string) string {
		name := placeholder.FindStringSubmatch(found)[1]
		value := env[name]
		switch {
		case !variable.MatchString(name):
			faults = append(faults, fmt.Errorf("project.yml: %s: only ${NAME} is used here", found))
		case value == "":
			faults = append(faults, fmt.Errorf("project.yml: %s has no value in .env.example", found))
		case strings.ContainsAny(value, "\"\\\n"):
			faults = append(faults, fmt.Errorf(".env.example: the value of %s would change project.yml: no quote, "+
				"backslash or line end fits in it", name))
		default:
			return value
		}
		return "missing"
	})
	return text, faults
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// checkQuotes finds variables outside of double quotes: a value such as 10 or `a: b` would not be read as a string.
func checkQuotes(yml []byte) []error {
	var document yaml.Node
	if err := yaml.Unmarshal(yml, &document); err != nil {
		return []error{fmt.Errorf("project.yml: before substitution, %w", err)}
	}
	var faults []error
	walk(&document, func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode && placeholder.MatchString(n.Value) && n.Style&yaml.DoubleQuotedStyle == 0 {
			faults = append(faults, fmt.Errorf("project.yml:%d: put double quotes around %s", n.Line, n.Value))
		}
	})
	return faults
}

func walk(n *yaml.Node, visit func(*yaml.Node)) {
	visit(n)
	for _, child := range n.Content {
		walk(child, visit)
	}
}

var (
	assignment = regexp.MustCompile(`^(?:export )?([A-Za-z_][A-Za-z0-9_.]*)=(.*)$`)
	quoted     = regexp.MustCompile(`^(?:"([^"]*)"|'([^']*)')\s*(?:#.*)?$`)
)

// readEnvExample reads .env.example as doctl's deployer (dotenv 16) and compose both read it, and refuses what they
// may read differently. `docker compose config` and `doctl serverless get-metadata .` show what the real ones read.
func readEnvExample(file string) (env map[string]string, faults []error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, []error{err}
	}
	env = map[string]string{}
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, err := readAssignment(line)
		if err != nil {
			faults = append(faults, fmt.Errorf(".env.example:%d: %w", i+1, err))
			continue
		}
		env[name] = value
	}
	return env, faults
}

func readAssignment(line string) (name, value string, err error) {
	parts := assignment.FindStringSubmatch(line)
	if parts == nil {
		return "", "", errors.New("not NAME=value")
	}
	name, value = parts[1], strings.TrimSpace(parts[2])
	if strings.Contains(value, "$") && value[0] != '\'' {
		return "", "", fmt.Errorf("compose replaces what follows $, doctl does not: put single quotes around the "+
			"value of %s", name)
	}
	if in := quoted.FindStringSubmatch(value); in != nil {
		return name, in[1] + in[2], nil
	}
	value, comment, hasComment := strings.Cut(value, "#")
	if strings.ContainsAny(value, "\"'`") {
		return "", "", fmt.Errorf("the quotes of %s do not match", name)
	}
	if hasComment && strings.TrimSpace(value) == value && value != "" {
		return "", "", fmt.Errorf("doctl takes #%s for a comment, compose does not: quote the value of %s", comment, name)
	}
	return name, strings.TrimSpace(value), nil
}

// checkPackages compares packages/ with the functions of project.yml, which are deployed whether they are in it or not.
func checkPackages(root string, project map[string][]string) []error {
	folders, faults := foldersOf(root)
	for _, pkg := range slices.Sorted(maps.Keys(project)) {
		for _, name := range project[pkg] {
			if !slices.Contains(folders[pkg], name) {
				faults = append(faults, fmt.Errorf("project.yml: function %s has no folder packages/%s/%s", name, pkg, name))
			}
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(folders)) {
		for _, name := range folders[pkg] {
			if !slices.Contains(project[pkg], name) {
				faults = append(faults, fmt.Errorf("packages/%s/%s: not in project.yml, and yet it would be deployed, open to all", pkg, name))
			}
			faults = append(faults, checkFolder(root, path.Join("packages", pkg, name))...)
		}
	}
	return faults
}

// foldersOf lists packages/, and finds files among the functions: each would be deployed as a function of its own.
func foldersOf(root string) (folders map[string][]string, faults []error) {
	folders = map[string][]string{}
	packages, err := os.ReadDir(filepath.Join(root, "packages"))
	if err != nil {
		return folders, []error{err}
	}
	for _, pkg := range packages {
		if !pkg.IsDir() {
			continue // the deployer passes over it
		}
		entries, err := os.ReadDir(filepath.Join(root, "packages", pkg.Name()))
		if err != nil {
			faults = append(faults, err)
		}
		for _, entry := range entries {
			switch {
			case entry.IsDir():
				folders[pkg.Name()] = append(folders[pkg.Name()], entry.Name())
			case entry.Name() != ".gitignore" && entry.Name() != ".DS_Store":
				faults = append(faults, fmt.Errorf("packages/%s/%s: the deployer takes each file here for a function", pkg.Name(), entry.Name()))
			}
		}
	}
	return folders, faults
}
