//go:build e2e

package e2e

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// finding is one of `fallback doctor --json`.
type finding struct{ Check, State, Found, Advice string }

// patient is what a doctor is sent to: a virtual host, and settings that are all as they should be.
type patient struct {
	*harness.VHost
	env     harness.Settings
	secrets []string
	program program
}

// newPatient has a user like one of the definitions' in AMQP_SERVER_URL, and one like the monitor. Both have passwords
// of their own, which must not be seen.
func newPatient(t *testing.T, fallback program, own *harness.Broker, like string) *patient {
	t.Helper()
	p := &patient{VHost: own.VHost(t), program: fallback}
	amqpURL, err := url.Parse(p.URL(like))
	if err != nil {
		t.Fatal(err)
	}
	amqpURL.User = p.user(t, like)
	managementURL := url.URL{Scheme: "http", Host: p.Management, User: p.user(t, monitor)}
	p.env = harness.Settings{
		"AMQP_SERVER_URL": amqpURL.String(), "RABBITMQ_MANAGEMENT_URL": managementURL.String(),
		"FALLBACK_ADDR":       "127.0.0.1:8080",
		"FALLBACK_TARGET_URL": harness.NewPrimary(t, nil).URL,
	}
	return p
}

// user makes one with the tags and permissions of one of the definitions', on the patient's virtual host.
func (p *patient) user(t *testing.T, like string) *url.Userinfo {
	t.Helper()
	names, err := topology.Of(topology.DefaultQueue)
	if err != nil {
		t.Fatal(err)
	}
	users := names.Users()
	u := users[slices.IndexFunc(users, func(u topology.User) bool { return u.Name == like })]
	name, password := fmt.Sprintf("%s-%s-%d", p.Name, like, len(p.secrets)), rand.Text()
	p.call(t, http.MethodPut, "/api/users/"+name, object{"password": password, "tags": strings.Join(u.Tags, ",")})
	t.Cleanup(func() { _ = p.Call(http.MethodDelete, "/api/users/"+name, nil, nil) })
	p.call(t, http.MethodPut, "/api/permissions/"+p.Name+"/"+name,
		object{"configure": u.Configure, "write": u.Write, "read": u.Read})
	p.secrets = append(p.secrets, password)
	return url.UserPassword(name, password)
}

func (p *patient) call(t *testing.T, method, path string, in any) {
	t.Helper()
	if err := p.Call(method, path, in, nil); err != nil {
		t.Fatal(err)
	}
}

// set changes a setting that is a URL.
func (p *patient) set(t *testing.T, name string, change func(*url.URL)) {
	t.Helper()
	u, err := url.Parse(p.env[name])
	if err != nil {
		t.Fatal(err)
	}
	change(u)
	p.env[name] = u.String()
}

// examine is one visit. No password is in what it says, and its exit code is that of its findings.
func (p *patient) examine(t *testing.T) []finding {
	t.Helper()
	visit := harness.StartWatch()
	o := p.program.run(t, p.env, "doctor", "--json")
	visit.Hold(t, 20*time.Second, "doctor")
	for _, secret := range append(p.secrets, "demonstration-") {
		if strings.Contains(o.stdout+o.stderr, secret) {
			t.Errorf("it shows %q:\n%s%s", secret, o.stdout, o.stderr)
		}
	}
	var findings []finding
	if err := json.Unmarshal([]byte(o.stdout), &findings); err != nil {
		t.Fatalf("%v in %s%s", err, o.stdout, o.stderr)
	}
	failed := slices.ContainsFunc(findings, func(f finding) bool { return f.State == "fail" })
	if failed != (o.code == 1) || o.code > 1 {
		t.Errorf("exit code: got %d, failed %v", o.code, failed)
	}
	for _, f := range findings {
		if (f.State == "fail" || f.State == "warn") != (f.Advice != "") {
			t.Errorf("%s, and the advice is %q: %+v", f.State, f.Advice, f)
		}
	}
	return findings
}

// expect visits until all but the given findings are ok: what the management API knows is some seconds old. Each is
// "state check: words".
func (p *patient) expect(t *testing.T, want ...string) []finding {
	t.Helper()
	slices.Sort(want)
	var findings []finding
	var got []string
	defer func() {
		if t.Failed() {
			t.Logf("not ok: %q\nwant:   %q\nall: %+v", got, want, findings)
		}
	}()
	harness.Eventually(t, "what is to be found", func() bool {
		findings, got = p.examine(t), nil
		for _, f := range findings {
			if f.State != "ok" {
				got = append(got, f.State+" "+f.Check+": "+f.Found)
			}
		}
		slices.Sort(got)
		return slices.EqualFunc(got, want, func(got, want string) bool {
			state, words, _ := strings.Cut(want, ": ")
			return strings.HasPrefix(got, state+": ") && strings.Contains(got, words)
		})
	})
	return findings
}

// says fails the test unless the check found the words.
func says(t *testing.T, findings []finding, check, words string) {
	t.Helper()
	for _, f := range findings {
		if f.Check == check && strings.Contains(f.Found+" "+f.Advice, words) {
			return
		}
	}
	t.Errorf("%s does not say %q: %+v", check, words, findings)
}

// without are the findings of a visit that found no way in to the broker over AMQP.
func without(more ...string) []string {
	return append(more, "skip version: no connection", "skip user: no connection")
}

// TestDoctor breaks one thing after the other, and holds that this is what is found, and nothing else.
func TestDoctor(t *testing.T) {
	t.Parallel()
	fallback := build(t)
	for _, row := range []struct {
		name string
		test func(*testing.T, *patient)
	}{
		{"all well", func(t *testing.T, p *patient) {
			findings := p.expect(t)
			says(t, findings, "user", "the server's")
			says(t, findings, "version", "RabbitMQ "+harness.Version())
			says(t, findings, "alarms", "one disk")
			says(t, findings, "queue", mainQueue+": quorum, 0 messages, 0 % full")
			says(t, findings, "queue", "FallbackAPIQueue.retry.10m: quorum")
			says(t, findings, "target", "is alive (200")
			checkText(t, p, findings)
		}},
		{"no management", func(t *testing.T, p *patient) {
			p.env["RABBITMQ_MANAGEMENT_URL"], p.env["FALLBACK_TARGET_URL"] = "", ""
			findings := p.expect(t, "skip management: not set", "skip queue: management API only",
				"skip target: a drain would idle")
			says(t, findings, "alarms", "takes messages")
		}},
		{"wrong password", func(t *testing.T, p *patient) {
			p.set(t, "AMQP_SERVER_URL", func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "geheim") })
			p.secrets = append(p.secrets, "geheim")
			says(t, p.expect(t, without("fail login: ")...), "login", "check the user and password")
		}},
		{"wrong virtual host", func(t *testing.T, p *patient) {
			p.set(t, "AMQP_SERVER_URL", func(u *url.URL) { u.Path = "/nowhere" })
			findings := p.expect(t, without("fail login: ", "fail queue: 404")...)
			says(t, findings, "login", "check the virtual host")
		}},
		{"no broker", func(t *testing.T, p *patient) {
			p.set(t, "AMQP_SERVER_URL", func(u *url.URL) { u.Host = nowhere(t) })
			p.expect(t, without("fail broker: connection refused", "skip tls: no connection",
				"skip login: no connection")...)
		}},
		{"no management API", func(t *testing.T, p *patient) {
			p.set(t, "RABBITMQ_MANAGEMENT_URL", func(u *url.URL) { u.Host = nowhere(t) })
			p.expect(t, "fail management: connection refused", "skip queue: ")
		}},
		{"the monitor's wrong password", func(t *testing.T, p *patient) {
			p.set(t, "RABBITMQ_MANAGEMENT_URL",
				func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "geheim") })
			p.secrets = append(p.secrets, "geheim")
			p.expect(t, "fail management: answered 401", "skip queue: ")
		}},
		{"queue missing", func(t *testing.T, p *patient) {
			p.call(t, http.MethodDelete, "/api/queues/"+p.Name+"/"+mainQueue, nil)
			p.expect(t, "fail user: queue FallbackAPIQueue does not exist",
				"fail queue: FallbackAPIQueue does not exist")
		}},
		{"another queue", func(t *testing.T, p *patient) {
			p.call(t, http.MethodDelete, "/api/queues/"+p.Name+"/"+parkedQueue, nil)
			p.expect(t, "fail queue: FallbackAPIQueue.parked does not exist")
		}},
		{"classic queue", func(t *testing.T, p *patient) {
			queue := "/api/queues/" + p.Name + "/" + mainQueue
			p.call(t, http.MethodDelete, queue, nil)
			p.call(t, http.MethodPut, queue, object{"durable": true, "arguments": object{"x-queue-type": "classic"}})
			p.expect(t, "fail queue: FallbackAPIQueue: classic, and not quorum")
		}},
		{"policy gone", func(t *testing.T, p *patient) {
			p.expect(t) // it was there
			p.call(t, http.MethodDelete, "/api/policies/"+p.Name+"/"+mainQueue, nil)
			p.expect(t, "fail queue: FallbackAPIQueue: quorum, 0 messages; no policy applies")
		}},
		{"policy that drops", func(t *testing.T, p *patient) {
			p.policy(t, object{"overflow": "drop-head"})
			p.expect(t, `fail queue: overflow is "drop-head" and not "reject-publish"`)
		}},
		{"policy with the default delivery limit", func(t *testing.T, p *patient) {
			p.policy(t, object{"delivery-limit": 20})
			p.expect(t, "fail queue: policy FallbackAPIQueue: delivery-limit is 20")
		}},
		{"retry queue of older definitions", func(t *testing.T, p *patient) {
			p.policyOf(t, mainQueue+".retry.10s", object{"max-length": 100_000})
			p.expect(t, "warn queue: FallbackAPIQueue.retry.10s: quorum, 0 messages; it takes less than "+
				"FallbackAPIQueue: max-length is 100000 and not 1000000")
		}},
		{"nearly full", func(t *testing.T, p *patient) {
			p.policy(t, object{"max-length": 10})
			ch := p.Channel(t, admin)
			for range 9 {
				if err := ch.Publish("", mainQueue, false, false, amqp.Publishing{}); err != nil {
					t.Fatal(err)
				}
			}
			p.expect(t, "warn queue: FallbackAPIQueue: quorum, 9 messages; 90 % full")
		}},
		{"demonstration passwords", func(t *testing.T, p *patient) {
			p.env["AMQP_SERVER_URL"], p.env["RABBITMQ_MANAGEMENT_URL"] = p.URL(publisher), p.ManagementURL(monitor)
			p.expect(t, "warn passwords: AMQP_SERVER_URL has the published demonstration password: for a loopback "+
				"address only",
				"warn passwords: RABBITMQ_MANAGEMENT_URL has the published")
		}},
		{"primary down", func(t *testing.T, p *patient) {
			p.env["FALLBACK_TARGET_URL"] = "http://user:geheim@" + nowhere(t)
			p.secrets = append(p.secrets, "geheim")
			p.expect(t, "warn target: is down: no connection")
		}},
		{"fallback as its own primary", func(t *testing.T, p *patient) {
			p.env["FALLBACK_TARGET_URL"] = p.Serve(t, nil).URL
			p.expect(t, "fail target: answered by fallback itself")
		}},
		{"fallback as its own primary, at every path", func(t *testing.T, p *patient) {
			p.env["FALLBACK_TARGET_URL"] = p.Serve(t, harness.Settings{"FALLBACK_PATH_PREFIX": "/"}).URL
			p.expect(t, "fail target: answered by fallback itself")
		}},
		{"open to everyone", func(t *testing.T, p *patient) {
			p.env["FALLBACK_ADDR"] = ""
			p.expect(t, "warn senders: everyone")
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.test(t, newPatient(t, fallback, broker, publisher))
		})
	}
	t.Run("help", func(t *testing.T) {
		fallback.run(t, nil, "doctor", "--help").check(t, 0,
			[]string{"Examples:", "docker compose exec server /fallback doctor", "--json"}, nil)
		fallback.run(t, nil, "doctor", "now").check(t, 2, []string{"takes no arguments"}, nil)
	})
	for like, role := range map[string]string{drainer: "the drain's", admin: "more than is needed",
		monitor: "do nothing"} {
		t.Run("as "+like, func(t *testing.T) {
			t.Parallel()
			doctorAs(t, newPatient(t, fallback, broker, like), like, role)
		})
	}
}

// policy changes the main queue's.
func (p *patient) policy(t *testing.T, with object) {
	t.Helper()
	p.policyOf(t, mainQueue, with)
}

func (p *patient) policyOf(t *testing.T, queue string, with object) {
	t.Helper()
	definition := object{}
	for key, value := range committedPolicies(t)[queue].(object) {
		definition[key] = value
	}
	for key, value := range with {
		definition[key] = value
	}
	p.call(t, http.MethodPut, "/api/policies/"+p.Name+"/"+queue,
		object{"pattern": "^" + regexp.QuoteMeta(queue) + "$", "apply-to": "queues", "priority": 10,
			"definition": definition})
}

// checkText holds that the lines for people say the same as those for programs.
func checkText(t *testing.T, p *patient, findings []finding) {
	t.Helper()
	o := p.program.run(t, p.env, "doctor")
	o.check(t, 0, nil, p.secrets)
	lines := strings.Split(strings.TrimSpace(o.stdout), "\n")
	if len(lines) != len(findings) {
		t.Fatalf("got %d lines, want %d:\n%s", len(lines), len(findings), o.stdout)
	}
	for i, f := range findings {
		if fields := strings.Fields(lines[i]); fields[0] != "ok" || fields[1] != f.Check {
			t.Errorf("got %q, want %+v", lines[i], f)
		}
	}
}

// doctorAs holds what is said of each user, and that the messages that wait are not touched by the visit of one who
// might.
func doctorAs(t *testing.T, p *patient, like, role string) {
	ch := p.Channel(t, admin)
	for _, queue := range []string{mainQueue, mainQueue, parkedQueue} {
		if err := ch.Publish("", queue, false, false, amqp.Publishing{}); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string][]string{
		drainer: {},
		admin:   {"warn user: administrator"},
		monitor: {"fail user: may not publish", "warn user: may do nothing"},
	}[like]
	if like == monitor && harness.Version() == "4.3" { // before, everyone may see every queue
		want = append(want, "warn user: may not see whether queue FallbackAPIQueue is there")
	}
	says(t, p.expect(t, want...), "user", role)
	if like == monitor {
		return
	}
	for queue, n := range map[string]int{mainQueue: 2, parkedQueue: 1} {
		if got := p.Count(t, queue); got != n {
			t.Errorf("%s: got %d messages ready, want %d", queue, got, n)
		}
		reader := p.Reader(t, queue)
		for range n {
			if d := reader.Next(t); d.Redelivered || d.Headers["x-delivery-count"] != nil &&
				d.Headers["x-delivery-count"] != int64(0) {
				t.Errorf("%s: somebody has taken it before: redelivered %v, %v", queue, d.Redelivered, d.Headers)
			}
		}
	}
}

// TestDoctorBroker is about what touches a whole broker: an alarm, certificates, and what is in its log.
func TestDoctorBroker(t *testing.T) {
	t.Parallel()
	fallback := build(t)
	// as it comes: its log, its address and its listeners count
	own, err := harness.StartBroker(harness.BrokerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("log", func(t *testing.T) { // no more than --help says
		for _, like := range []string{publisher, drainer, admin, monitor} {
			p := newPatient(t, fallback, own, like)
			before := channelErrors(t, own)
			p.examine(t)
			if got := channelErrors(t, own) - before; got > 4 {
				t.Errorf("%s: got %d errors in the broker's log, want 4 at most", like, got)
			}
		}
	})
	t.Run("alarm", func(t *testing.T) {
		p := newPatient(t, fallback, own, publisher)
		p.expect(t)
		t.Cleanup(func() { watermark(t, own, normal) })
		watermark(t, own, alarming)
		findings := p.examine(t) // at once: the nodes may say so later, the connection that publishes knows
		if !slices.ContainsFunc(findings, func(f finding) bool { return f.Check == "alarms" && f.State == "fail" }) {
			t.Errorf("no alarm: %+v", findings)
		}
		p.expect(t, "fail alarms: memory alarm on ")
		p.env["RABBITMQ_MANAGEMENT_URL"] = ""
		p.expect(t, "skip management: ", "fail alarms: the broker takes no messages: memory or disk alarm",
			"skip queue: ")
		watermark(t, own, normal)
		p.expect(t, "skip management: ", "skip queue: ")
	})
	t.Run("certificate", func(t *testing.T) {
		p := newPatient(t, fallback, own, publisher)
		ca := startTLS(t, p.VHost)
		p.set(t, "AMQP_SERVER_URL", func(u *url.URL) {
			u.Scheme, u.Host, u.RawQuery = "amqps", net.JoinHostPort(own.IP(), "5671"), "cacertfile="+ca
		})
		p.expect(t, "warn tls: valid for 0 days only")
		p.set(t, "AMQP_SERVER_URL", func(u *url.URL) { u.RawQuery = "cacertfile=" + ca + ".gone" })
		says(t, p.expect(t, without("fail tls: no such file", "skip login: ")...), "tls", "cacertfile")
		p.set(t, "AMQP_SERVER_URL", func(u *url.URL) { u.RawQuery = "" })
		says(t, p.expect(t, without("fail tls: unknown authority", "skip login: ")...), "tls", "cacertfile=")
		p.set(t, "AMQP_SERVER_URL", func(u *url.URL) { u.Host = net.JoinHostPort(own.IP(), "5672") })
		says(t, p.expect(t, without("fail tls: ", "skip login: ")...), "tls", "does not speak TLS")
		p.set(t, "AMQP_SERVER_URL", func(u *url.URL) { u.Scheme, u.Host = "amqp", net.JoinHostPort(own.IP(), "5671") })
		p.expect(t, without("fail login: ")...)
	})
}

// channelErrors is how many the broker's log has.
func channelErrors(t *testing.T, own *harness.Broker) int {
	t.Helper()
	log, err := harness.Run(harness.Patience, "docker", "logs", own.ID())
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(log, "Channel error on connection")
}
