//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// TestArticleHost goes the article's own way, by the README's own commands: a host with RabbitMQ as a package manager
// installs it, our definitions imported into the running broker, and the server beside it.
func TestArticleHost(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.run("rabbitmqctl authenticate_user guest guest") // so it is that the broker comes
	var asPublisher string                             // what the shell keeps from command to command
	for _, command := range articleCommands(t) {
		switch {
		case strings.HasPrefix(command, "apt-get install"), strings.HasPrefix(command, "make build"):
			// newHost has done the like.
		case command == "rabbitmqctl delete_vhost /" && harness.Version() != "3.10":
		case strings.HasPrefix(command, ". "), strings.HasPrefix(command, "export "):
			asPublisher += command + "; "
		case strings.HasSuffix(command, "fallback serve"):
			h.start(asPublisher + strings.Replace(command, "127.0.0.1:", ":", 1)) // the test is not on that host
		default:
			h.run(command)
		}
	}
	h.checkImported()
	if out, err := h.exec("rabbitmqctl authenticate_user guest guest"); err == nil {
		t.Errorf("guest is let in:\n%s", out)
	}
	harness.Eventually(t, "the server to be ready", func() bool {
		_, err := h.exec("fallback health")
		return err == nil
	})
	request, err := http.NewRequest(http.MethodPost, "http://"+h.Port("8080/tcp")+"/fallback", nil)
	if err != nil {
		t.Fatal(err)
	}
	accepted(t, request)
	eventuallyListed(t, h.Broker, "rabbitmqctl list_queues", articleQueue, "1")

	var queues []string
	for line := range strings.Lines(h.run(asPublisher + "fallback queues")) {
		queues = append(queues, strings.Join(strings.Fields(line), " "))
	}
	if want := articleQueue + " 1 0"; !slices.Contains(queues, want) {
		t.Errorf("fallback queues: got %q, want the row %q", queues, want)
	}

	// The article's program as it stands works on what was imported, its declare without arguments included.
	password := strings.TrimSpace(h.run(". /etc/fallback/fallback.env; echo $RABBITMQ_ADMIN_PASSWORD"))
	articlePublish(t, "amqp://admin:"+password+"@"+h.AMQP+"/")
	eventuallyListed(t, h.Broker, "rabbitmqctl list_queues", articleQueue, "2")
}

// articleCommands are those of the README's section on a host without containers, without their comments.
func articleCommands(t *testing.T) (commands []string) {
	t.Helper()
	_, section, found := strings.Cut(readme(t), "\n### RabbitMQ from apt, without containers\n")
	blocks := consoleBlocks(section)
	if !found || len(blocks) == 0 {
		t.Fatal("the README has no such section")
	}
	for _, part := range blocks[0] {
		command, _, _ := strings.Cut(part, " #")
		commands = append(commands, strings.TrimSpace(command))
	}
	return commands
}

// host is a machine with a RabbitMQ of the package manager's and our program.
type host struct {
	*harness.Broker
	t *testing.T
}

func newHost(t *testing.T) host {
	t.Helper()
	bare, err := harness.StartBroker(harness.BrokerOptions{Bare: true, Ports: []string{"8080/tcp"}})
	if err != nil {
		t.Fatal(err)
	}
	h := host{bare, t}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := harness.Run(harness.Patience, "docker", "logs", "--tail", "40", h.ID())
			t.Logf("the broker's log:\n%s", out)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	program := string(build(t))
	if _, err := harness.Run(harness.Patience, "docker", "cp", program, h.ID()+":/usr/local/bin/fallback"); err != nil {
		t.Fatal(err)
	}
	// Not with rabbitmqctl: before the broker has made its cookie, that would make one of its own.
	harness.Eventually(t, "the broker to answer", func() bool {
		err = logIn(h.Broker, &amqp.PlainAuth{Username: "guest", Password: "guest"})
		return err == nil || errors.Is(err, amqp.ErrCredentials)
	})
	if err == nil {
		t.Error("guest is let in from outside: this is not how a package manager installs it")
	}
	h.run("rabbitmqctl await_startup")
	return h
}

// exec runs a command line on the host as a person would, and returns what it prints.
func (h host) exec(line string) (string, error) {
	return harness.Run(harness.Patience, h.command(line)...)
}

// command is docker's for a command line on the host.
func (h host) command(line string, options ...string) []string {
	return append(append([]string{"docker", "exec", "--user", "root"}, options...), h.ID(), "sh", "-c",
		// The package's commands before the image's: they are scripts around them, which change the user and the
		// folder.
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH; "+line)
}

// run is exec for what must succeed.
func (h host) run(line string) string {
	h.t.Helper()
	out, err := h.exec(line)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// start runs a command line that does not end; the test shows what it wrote if it fails.
func (h host) start(line string) {
	h.t.Helper()
	if _, err := harness.Run(harness.Patience, h.command("exec >/tmp/log 2>&1; "+line, "--detach")...); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if h.t.Failed() {
			out, _ := h.exec("cat /tmp/log")
			h.t.Logf("the log of %s:\n%s", line, out)
		}
	})
}

// list is what a list command of rabbitmqctl says: a row of columns a line, sorted.
func (h host) list(command string) []string {
	h.t.Helper()
	rows := strings.Split(strings.TrimSpace(h.run("rabbitmqctl --quiet --no-table-headers "+command)), "\n")
	slices.Sort(rows)
	return rows
}

// checkImported asks rabbitmqctl for everything that the definitions make, since there is no management API.
func (h host) checkImported() {
	h.t.Helper()
	of, err := topology.Of(articleQueue)
	if err != nil {
		h.t.Fatal(err)
	}
	var users, permissions, queues []string
	for _, u := range of.Users() {
		users = append(users, fmt.Sprintf("%s\t%v", u.Name, u.Tags))
		permissions = append(permissions, strings.Join([]string{u.Name, u.Configure, u.Write, u.Read}, "\t"))
	}
	for _, name := range of.Queues() {
		queues = append(queues, strings.Join([]string{name, "quorum", "true", name}, "\t"))
	}
	for _, row := range []struct {
		command string
		want    []string
	}{
		{"list_queues name type durable policy", queues},
		{"list_users", users},
		{"list_permissions", permissions},
		{"list_vhosts name default_queue_type", []string{"/\tquorum"}},
	} {
		slices.Sort(row.want)
		var got []string
		within := time.Now().Add(harness.Patience) // the import goes on after the command has ended
		for got = h.list(row.command); !slices.Equal(got, row.want) &&
			time.Now().Before(within); got = h.list(row.command) {
		}
		if !slices.Equal(got, row.want) {
			h.t.Errorf("%s: got\n%s\nwant\n%s", row.command, strings.Join(got, "\n"), strings.Join(row.want, "\n"))
		}
	}

	policies := committedPolicies(h.t)
	for _, line := range h.list("list_policies") {
		column := strings.Split(line, "\t") // vhost, name, pattern, apply-to, definition, priority
		if len(column) != 6 {
			h.t.Fatalf("list_policies: %q", line)
		}
		name := column[1]
		if want := "^" + regexp.QuoteMeta(name) + "$"; column[2] != want || column[3] != "queues" {
			h.t.Errorf("policy %s: got pattern %q for %q, want %q for queues", name, column[2], column[3], want)
		}
		var got any
		if err := json.Unmarshal([]byte(column[4]), &got); err != nil {
			h.t.Fatalf("%v in %q", err, line)
		}
		if !reflect.DeepEqual(got, policies[name]) {
			h.t.Errorf("policy %s: got\n%v\nwant\n%v", name, got, policies[name])
		}
		delete(policies, name)
	}
	for name := range policies {
		h.t.Errorf("there is no policy %s", name)
	}
}
