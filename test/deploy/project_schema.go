package deploy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// schema walks a project.yml and gathers its faults. The deployer knows a few keys more, for static sites, sequences
// and containers, which have no place here.
type schema struct {
	faults   []error
	triggers map[string]bool // by name, which must be unique in a namespace
	raw      int             // functions that HTTP reaches
}

var (
	projectKeys  = []string{"parameters", "environment", "packages"}
	packageKeys  = []string{"name", "shared", "web", "environment", "parameters", "annotations", "functions"}
	functionKeys = []string{"name", "runtime", "main", "binary", "localBuild", "remoteBuild", "web", "webSecure",
		"environment", "parameters", "annotations", "limits", "triggers"}
	limitKeys   = []string{"timeout", "memory", "logs"}
	triggerKeys = []string{"name", "type", "enabled", "scheduledDetails"}
	detailKeys  = []string{"cron", "body"}

	// platformAnnotations are set by other keys.
	platformAnnotations = map[string]string{"web-export": "web", "raw-http": "web: raw",
		"require-whisk-auth": "webSecure"}
)

const (
	webTimeout  = 30_000  // ms: then the platform answers 202 in the function's place
	timeLimit   = 900_000 // ms: the platform's own
	maxTriggers = 3
)

// table is a mapping in the document, with the words for where it is.
type table struct {
	where  string
	fields map[string]any
}

func (s *schema) fault(where, format string, args ...any) {
	s.faults = append(s.faults, fmt.Errorf("project.yml: %s: %s", where, fmt.Sprintf(format, args...)))
}

// table takes a value for a mapping with none but these keys; any keys, if there are none.
func (s *schema) table(where string, value any, keys ...string) table {
	fields, ok := value.(map[string]any)
	if !ok {
		s.fault(where, "want a mapping")
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if len(keys) > 0 && !slices.Contains(keys, key) {
			s.fault(where, "unknown key %s", key)
		}
	}
	return table{where, fields}
}

func (s *schema) list(where string, value any) []any {
	list, ok := value.([]any)
	if !ok {
		s.fault(where, "want a list")
	}
	return list
}

// project returns the names of the packages and their functions.
func (s *schema) project(document any) map[string][]string {
	project := s.table("top level", document, projectKeys...)
	s.environment(project)
	s.mapping(project, "parameters")
	functions := map[string][]string{}
	for i, value := range s.list("packages", project.fields["packages"]) {
		pkg, name := s.named(fmt.Sprintf("package %d", i+1), "package", value, packageKeys)
		if _, twice := functions[name]; twice {
			s.fault(pkg.where, "is there twice")
		}
		functions[name] = s.pkg(pkg, name)
	}
	if s.raw == 0 {
		s.fault("packages", "no function has web: raw, so HTTP reaches nothing")
	}
	if len(s.triggers) > maxTriggers {
		s.fault("triggers", "%d of them, the platform allows %d", len(s.triggers), maxTriggers)
	}
	return functions
}

func (s *schema) pkg(pkg table, name string) (functions []string) {
	s.boolean(pkg, "shared")
	s.environment(pkg)
	s.mapping(pkg, "parameters")
	s.annotations(pkg)
	for _, key := range []string{"parameters", "annotations", "shared"} {
		if name == "default" && !empty(pkg.fields[key]) {
			s.fault(pkg.where, "%s cannot be set for the package default", key)
		}
	}
	for i, value := range s.list(pkg.where+" functions", pkg.fields["functions"]) {
		f, fn := s.named(fmt.Sprintf("%s function %d", pkg.where, i+1), "function", value, functionKeys)
		if slices.Contains(functions, fn) {
			s.fault(f.where, "is there twice")
		}
		functions = append(functions, fn)
		s.function(f, pkg.fields["web"])
	}
	return functions
}

func empty(value any) bool {
	fields, isMapping := value.(map[string]any)
	return value == nil || value == false || isMapping && len(fields) == 0
}

func (s *schema) function(f table, packageWeb any) {
	if f.fields["runtime"] != "go:default" {
		s.fault(f.where, "runtime %v: want go:default, since a version may be retired, and nothing of it is used",
			f.fields["runtime"])
	}
	s.text(f, "main")
	s.boolean(f, "binary")
	s.boolean(f, "remoteBuild")
	if f.fields["localBuild"] != true || f.fields["remoteBuild"] == true {
		s.fault(f.where, "want localBuild: true, and no remoteBuild: the platform's builder gets this folder "+
			"without the module around it")
	}
	if secure := f.fields["webSecure"]; secure != nil && secure != false {
		s.text(f, "webSecure")
	}
	s.environment(f)
	s.mapping(f, "parameters")
	s.annotations(f)
	s.limits(f, s.web(f, packageWeb))
	s.triggersOf(f)
}

// web says whether HTTP reaches the function. Not to say anything means true.
func (s *schema) web(f table, packageWeb any) bool {
	web, own := f.fields["web"]
	if !own {
		web = packageWeb
	}
	switch web {
	case "raw":
		s.raw++
		return true
	case false:
		return false
	}
	s.fault(f.where, "want web: raw (or false for what only a schedule calls): otherwise query and body are merged, "+
		"and lost as they were")
	return true
}

func (s *schema) limits(f table, web bool) {
	limits := s.table(f.where+" limits", f.fields["limits"], limitKeys...)
	most := timeLimit
	if web {
		most = webTimeout - 1
	}
	s.number(limits, "timeout", 1, most)
	if limits.fields["memory"] != nil {
		s.number(limits, "memory", 128, 1024)
	}
	if limits.fields["logs"] != nil {
		s.number(limits, "logs", 1, 256)
	}
}

func (s *schema) triggersOf(f table) {
	if f.fields["triggers"] == nil {
		return
	}
	for i, value := range s.list(f.where+" triggers", f.fields["triggers"]) {
		trigger, name := s.named(fmt.Sprintf("%s trigger %d", f.where, i+1), "trigger", value, triggerKeys)
		if s.triggers[name] {
			s.fault(trigger.where, "the name is used twice in this namespace")
		}
		s.triggers[name] = true
		s.boolean(trigger, "enabled")
		if trigger.fields["type"] != "SCHEDULED" {
			s.fault(trigger.where, "type %v is not SCHEDULED", trigger.fields["type"])
		}
		s.schedule(trigger)
	}
}

func (s *schema) schedule(trigger table) {
	details := s.table(trigger.where+" scheduledDetails", trigger.fields["scheduledDetails"], detailKeys...)
	s.mapping(details, "body")
	if cron, _ := details.fields["cron"].(string); !validCron(cron) {
		s.fault(details.where, "cron %v is not five fields of numbers", details.fields["cron"])
	}
}

// named is a table that has a name, by which its faults go.
func (s *schema) named(where, what string, value any, keys []string) (t table, name string) {
	fields, _ := value.(map[string]any)
	name, _ = fields["name"].(string)
	if name == "" {
		s.fault(where, "want a name")
	} else {
		where = what + " " + name
	}
	return s.table(where, value, keys...), name
}

func (s *schema) environment(t table) {
	s.mapping(t, "environment")
	variables, _ := t.fields["environment"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		if _, ok := variables[name].(string); !ok {
			s.fault(t.where, "environment %s: %v is not a string: quote it", name, variables[name])
		}
	}
}

func (s *schema) annotations(t table) {
	s.mapping(t, "annotations")
	annotations, _ := t.fields["annotations"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		if key := platformAnnotations[name]; key != "" {
			s.fault(t.where, "annotation %s is set by %s", name, key)
		}
	}
}

func (s *schema) mapping(t table, key string) {
	if t.fields[key] != nil {
		s.table(t.where+" "+key, t.fields[key])
	}
}

func (s *schema) boolean(t table, key string) {
	if _, ok := t.fields[key].(bool); !ok && t.fields[key] != nil {
		s.fault(t.where, "%s: want true or false", key)
	}
}

func (s *schema) text(t table, key string) {
	if _, ok := t.fields[key].(string); !ok && t.fields[key] != nil {
		s.fault(t.where, "%s: want a string", key)
	}
}

func (s *schema) number(t table, key string, least, most int) {
	if n, ok := t.fields[key].(int); !ok || n < least || n > most {
		s.fault(t.where, "%s: %v is not a number from %d to %d", key, t.fields[key], least, most)
	}
}

// cronRanges are the fields: minute, hour, day of the month, month, day of the week.
var cronRanges = [][2]int{{0, 59}, {0, 23}, {1, 31}, {1, 12}, {0, 6}}

// validCron knows what the deployer's validator knows: lists, ranges and steps of numbers; no names, no seconds.
func validCron(cron string) bool {
	fields := strings.Fields(cron)
	if len(fields) != len(cronRanges) {
		return false
	}
	for i, field := range fields {
		for item := range strings.SplitSeq(field, ",") {
			if !validCronItem(item, cronRanges[i]) {
				return false
			}
		}
	}
	return true
}

func validCronItem(item string, within [2]int) bool {
	span, step, stepped := strings.Cut(item, "/")
	if n, err := strconv.Atoi(step); stepped && (err != nil || n < 1) {
		return false
	}
	if span == "*" {
		return true
	}
	first, last, ranged := strings.Cut(span, "-")
	if !ranged {
		last = first
	}
	from, err1 := strconv.Atoi(first)
	to, err2 := strconv.Atoi(last)
	return err1 == nil && err2 == nil && within[0] <= from && from <= to && to <= within[1]
}
