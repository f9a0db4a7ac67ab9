package deploy_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	settings "fallback/functions/config"
	"fallback/functions/drain"
)

// Of a template's parts, what the published rules allow for: those of CloudFormation, of SAM (the Function type), of
// Lambda, of EventBridge and of Parameter Store, as far as the template has use for them. What is not here is a fault,
// be it a slip of the pen or a property that is to be added. They are of AWS's documentation of November 2026; `sam
// validate --lint --template functions/cmd/lambda/template.yaml` has the real rules read the same file.
var (
	templateParts = []string{"AWSTemplateFormatVersion", "Transform", "Description", "Parameters", "Globals",
		"Resources", "Outputs"}
	functionParts = []string{"Runtime", "Handler", "Architectures", "CodeUri", "MemorySize", "Description", "Timeout",
		"Environment", "FunctionUrlConfig", "EventInvokeConfig", "Events", "ReservedConcurrentExecutions"}
	functionGlobals = []string{"Runtime", "Handler", "Architectures", "CodeUri", "MemorySize", "Timeout", "Environment"}
	parameterParts  = []string{"Type", "Description", "AllowedPattern", "Default"}
	outputParts     = []string{"Description", "Value"}

	logicalID    = regexp.MustCompile(`^[A-Za-z0-9]{1,255}$`)
	variableName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_]+$`)
	reservedName = regexp.MustCompile(`^(AWS_|LAMBDA_|_HANDLER$|_X_AMZN_)`)
	// no SecureString: Lambda's environment cannot have one
	storeReference = regexp.MustCompile(`^\{\{resolve:ssm:(/[a-zA-Z0-9_.-]+)+(:[0-9]+)?\}\}$`)
	rate           = regexp.MustCompile(`^rate\((1 (minute|hour|day)|([2-9]|[1-9][0-9]+) (minutes|hours|days))\)$`)
)

// template checks one template. It collects what is wrong.
type template struct {
	parameters, resources map[string]*yaml.Node
	faults                []string
}

func (c *template) fault(format string, args ...any) {
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

// fields are a mapping's, all of which must be known; a key that is there twice is a fault of the YAML, found before.
func (c *template) fields(n *yaml.Node, where string, known []string) map[string]*yaml.Node {
	out := map[string]*yaml.Node{}
	if n == nil || n.Kind != yaml.MappingNode {
		c.fault("%s is not a mapping", where)
		return out
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i].Value
		if known != nil && !slices.Contains(known, name) {
			c.fault("%s: %s is not known", where, name)
		}
		out[name] = n.Content[i+1]
	}
	return out
}

func (c *template) whole(n *yaml.Node, where string, least, most int) int {
	v, err := 0, fmt.Errorf("missing")
	if n != nil {
		v, err = strconv.Atoi(n.Value)
	}
	if err != nil || v < least || v > most {
		c.fault("%s is not a whole number from %d to %d", where, least, most)
	}
	return v
}

func (c *template) is(n *yaml.Node, where string, allowed ...string) {
	if n == nil || !slices.Contains(allowed, n.Value) {
		c.fault("%s is not one of %v", where, allowed)
	}
}

// checkTemplate returns what is wrong with a template, and the environment of each of its functions, with sample in
// the place of what is filled in when it is deployed.
func checkTemplate(raw []byte, sample func(what string) string) (faults []string,
	environments map[string]map[string]string, timeouts map[string]time.Duration) {
	c := &template{}
	environments, timeouts = map[string]map[string]string{}, map[string]time.Duration{}
	var document yaml.Node
	if err := yaml.Unmarshal(raw, &document); err != nil {
		return []string{err.Error()}, nil, nil
	}
	if err := document.Decode(&map[string]any{}); err != nil { // it knows of keys that are there twice
		return []string{err.Error()}, nil, nil
	}
	top := c.fields(document.Content[0], "the template", templateParts)
	c.is(top["AWSTemplateFormatVersion"], "AWSTemplateFormatVersion", "2010-09-09")
	c.is(top["Transform"], "Transform", "AWS::Serverless-2016-10-31")
	if d := top["Description"]; d == nil || len(d.Value) > 1024 {
		c.fault("Description is missing, or longer than 1024 bytes")
	}
	c.parameters = c.fields(top["Parameters"], "Parameters", nil)
	for name, p := range c.parameters {
		fields := c.fields(p, "Parameters."+name, parameterParts)
		c.is(fields["Type"], "Parameters."+name+".Type", "String")
		if p := fields["AllowedPattern"]; p != nil {
			if _, err := regexp.Compile(p.Value); err != nil {
				c.fault("Parameters.%s.AllowedPattern: %v", name, err)
			}
		}
	}
	globals := c.fields(c.fields(top["Globals"], "Globals", []string{"Function"})["Function"], "Globals.Function",
		functionGlobals)
	c.resources = c.fields(top["Resources"], "Resources", nil)
	for name, r := range c.resources {
		where := "Resources." + name
		fields := c.fields(r, where, []string{"Type", "Properties"})
		c.is(fields["Type"], where+".Type", "AWS::Serverless::Function")
		properties := maps.Clone(globals)
		maps.Copy(properties, c.fields(fields["Properties"], where+".Properties", functionParts))
		environments[name] = c.function(where, properties, sample)
		timeouts[name] = time.Duration(c.whole(properties["Timeout"], where+".Timeout", 1, 900)) * time.Second
	}
	for _, ids := range []map[string]*yaml.Node{c.parameters, c.resources} {
		for id := range ids {
			if !logicalID.MatchString(id) {
				c.fault("%s is no logical id", id)
			}
		}
	}
	for name, o := range c.fields(top["Outputs"], "Outputs", nil) {
		value := c.fields(o, "Outputs."+name, outputParts)["Value"]
		if value == nil || value.Tag != "!GetAtt" || !c.hasURL(value.Value) {
			c.fault("Outputs.%s.Value is not the URL of a function that has one", name)
		}
	}
	return c.faults, environments, timeouts
}

// hasURL says whether !GetAtt finds it: SAM calls the URL of a function NameUrl.
func (c *template) hasURL(attribute string) bool {
	name, ok := strings.CutSuffix(attribute, "Url.FunctionUrl")
	if !ok || c.resources[name] == nil {
		return false
	}
	properties := c.fields(c.resources[name], name, nil)["Properties"]
	return c.fields(properties, name, nil)["FunctionUrlConfig"] != nil
}

// function checks a function with the globals in it and returns its environment.
func (c *template) function(where string, p map[string]*yaml.Node, sample func(string) string) map[string]string {
	c.is(p["Runtime"], where+".Runtime", "provided.al2023")
	c.is(p["Handler"], where+".Handler", "bootstrap")
	c.whole(p["MemorySize"], where+".MemorySize", 128, 10240)
	if n := p["ReservedConcurrentExecutions"]; n != nil {
		c.whole(n, where+".ReservedConcurrentExecutions", 1, 100_000)
	}
	if a := p["Architectures"]; a == nil || a.Kind != yaml.SequenceNode || len(a.Content) != 1 {
		c.fault("%s.Architectures is not a list of one", where)
	} else {
		c.is(a.Content[0], where+".Architectures", "arm64", "x86_64")
		zip := map[string]string{"arm64": "lambda-arm64.zip", "x86_64": "lambda-amd64.zip"}[a.Content[0].Value]
		if code := p["CodeUri"]; code == nil ||
			filepath.Join("functions", "cmd", "lambda", code.Value) != filepath.Join("dist", zip) {
			c.fault("%s.CodeUri is not dist/%s, which make lambda makes for %s", where, zip, a.Content[0].Value)
		}
	}
	if u := p["FunctionUrlConfig"]; u != nil {
		fields := c.fields(u, where+".FunctionUrlConfig", []string{"AuthType", "InvokeMode"})
		c.is(fields["AuthType"], where+".FunctionUrlConfig.AuthType", "NONE", "AWS_IAM")
		if fields["InvokeMode"] != nil { // streamed answers have another shape
			c.is(fields["InvokeMode"], where+".FunctionUrlConfig.InvokeMode", "BUFFERED")
		}
	}
	if e := p["EventInvokeConfig"]; e != nil {
		c.whole(c.fields(e, where+".EventInvokeConfig", []string{"MaximumRetryAttempts"})["MaximumRetryAttempts"],
			where+".MaximumRetryAttempts", 0, 2)
	}
	if e := p["Events"]; e != nil {
		for name, event := range c.fields(e, where+".Events", nil) {
			fields := c.fields(event, where+".Events."+name, []string{"Type", "Properties"})
			c.is(fields["Type"], where+".Events."+name+".Type", "Schedule")
			schedule := c.fields(fields["Properties"], where+".Events."+name, []string{"Schedule"})["Schedule"]
			if schedule == nil || !rate.MatchString(schedule.Value) {
				c.fault("%s.Events.%s.Schedule is no rate", where, name)
			}
		}
	}
	return c.environment(where, p["Environment"], sample)
}

func (c *template) environment(where string, n *yaml.Node, sample func(string) string) map[string]string {
	env := map[string]string{}
	size := 0
	for name, value := range c.fields(c.fields(n, where+".Environment", []string{"Variables"})["Variables"],
		where+".Environment.Variables", nil) {
		at := where + ".Environment.Variables." + name
		if !variableName.MatchString(name) || reservedName.MatchString(name) {
			c.fault("%s: Lambda does not allow for the name", at)
		}
		switch {
		case value.Tag == "!Ref" && c.parameters[value.Value] != nil:
			env[name] = sample(name)
		case value.Tag != "!!str":
			c.fault("%s is neither text nor !Ref of a parameter", at)
		case strings.Contains(value.Value, "{{"):
			if !storeReference.MatchString(value.Value) {
				c.fault("%s: CloudFormation cannot resolve %s here", at, value.Value)
			}
			env[name] = sample(name)
		default:
			env[name] = value.Value
		}
		size += len(name) + len(env[name])
	}
	if size > 4096 {
		c.fault("%s.Environment has %d bytes, 4096 are allowed", where, size)
	}
	return env
}

// samples are what a deployment fills in.
var samples = map[string]string{
	"AMQP_SERVER_URL": "amqps://user:password@broker.example.com:5671/", "FALLBACK_TOKENS": strings.Repeat("0", 64),
	"FALLBACK_TARGET_URL": "https://api.example.com",
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../functions/cmd/lambda/template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	faults, environments, timeouts := checkTemplate(raw, func(name string) string { return samples[name] })
	for _, f := range faults {
		t.Error(f)
	}
	if !strings.Contains(string(raw), "NOT RUN ON AWS") {
		t.Error("it does not say that nobody has run it")
	}
	needs := map[string][]string{"Enqueue": {"AMQP_SERVER_URL"}, "Drain": {"AMQP_SERVER_URL", "FALLBACK_TARGET_URL"}}
	if len(environments) != len(needs) {
		t.Fatalf("got functions %v", environments)
	}
	for name, needs := range needs {
		env := environments[name]
		c, err := settings.Load(func(name string) (string, bool) { v, ok := env[name]; return v, ok }, needs...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for variable := range env {
			if !strings.Contains(settings.Markdown(), "| `"+variable+"` |") {
				t.Errorf("%s: %s is no setting", name, variable)
			}
		}
		switch {
		case name == "Enqueue" && timeouts[name] <= c.Timeout:
			t.Errorf("Enqueue ends after %s, and FALLBACK_TIMEOUT is %s", timeouts[name], c.Timeout)
		case name == "Drain" && timeouts[name] < c.TargetTimeout+drain.Grace:
			t.Errorf("Drain ends after %s: less than FALLBACK_TARGET_TIMEOUT, %s, and %s", timeouts[name],
				c.TargetTimeout, drain.Grace)
		}
	}
	if env := environments["Enqueue"]; env["FALLBACK_TOKENS"] == "" && env["FALLBACK_WEBHOOK_SECRETS"] == "" {
		t.Error("anyone on the internet may enqueue")
	}
}

// TestTemplateFaults holds that the check finds what is wrong.
func TestTemplateFaults(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../functions/cmd/lambda/template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ from, to, want string }{
		{"Timeout: 240", "Timeout: 901", "Timeout is not a whole number"},
		{"MemorySize: 256", "Memory: 256", "Memory is not known"},
		{"Runtime: provided.al2023", "Runtime: go1.x", "Runtime is not one of"},
		{"[arm64]", "[x86_64]", "CodeUri is not dist/lambda-amd64.zip"},
		{"resolve:ssm:/fallback/tokens", "resolve:ssm-secure:/fallback/tokens", "cannot resolve"},
		{"!Ref TargetUrl", "!Ref Target", "neither text nor !Ref"},
		{"'6291456'", "6291456", "neither text nor !Ref"},
		{"FALLBACK_TOKENS:", "AWS_REGION:", "does not allow for the name"},
		{"rate(5 minutes)", "rate(5 minute)", "is no rate"},
		{"rate(5 minutes)", "rate(1 minutes)", "is no rate"},
		{"!GetAtt EnqueueUrl.FunctionUrl", "!GetAtt DrainUrl.FunctionUrl", "not the URL of a function"},
		{"AuthType: NONE", "AuthType: None", "AuthType is not one of"},
		{"MaximumRetryAttempts: 0", "MaximumRetryAttempts: 3", "MaximumRetryAttempts is not"},
		{"  Drain:", "  Drain-It:", "no logical id"},
		{"AWS::Serverless-2016-10-31", "AWS::Serverless", "Transform is not"},
		{"  Drain:", "  Enqueue:", "already defined"},
		{"Type: Schedule\n", "Type: Cron\n", "Type is not one of"},
		{"AllowedPattern: https?://.+", "AllowedPattern: https?://(", "AllowedPattern"},
		{"Handler: bootstrap", "Handler: [bootstrap", "did not find"},
	} {
		if !strings.Contains(string(raw), row.from) {
			t.Errorf("the template has no %q", row.from)
		}
		faults, _, _ := checkTemplate([]byte(strings.Replace(string(raw), row.from, row.to, 1)),
			func(name string) string { return samples[name] })
		if !strings.Contains(strings.Join(faults, "\n"), row.want) {
			t.Errorf("%s: got %q, want %s", row.to, faults, row.want)
		}
	}
}
