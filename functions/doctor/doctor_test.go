package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fallback/functions/config"
	"fallback/functions/management"
	"fallback/functions/topology"
)

// examine runs all checks with the settings, and returns what they find by the names of the checks.
func examine(t *testing.T, env map[string]string) (found map[string][]Finding, failed int) {
	t.Helper()
	found = map[string][]Finding{}
	failed = Examine(t.Context(), environ(env), func(f Finding) { found[f.Check] = append(found[f.Check], f) })
	return found, failed
}

func environ(env map[string]string) (environ config.Environ) {
	for name, value := range env {
		environ = append(environ, name+"="+value)
	}
	return environ
}

// want fails the test unless one of the findings has the state and says the words.
func want(t *testing.T, found []Finding, state State, words string) {
	t.Helper()
	for _, f := range found {
		if f.State == state && strings.Contains(f.Found+" "+f.Advice, words) {
			return
		}
	}
	t.Errorf("got %+v, want %s with %q", found, state, words)
}

// TestKeys holds that it is told which keys are used, where a server of this host can be asked.
func TestKeys(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			fmt.Fprint(w, "# TYPE fallback_key_uses_total counter\n"+
				"fallback_key_uses_total{kind=\"token\",place=\"1\"} "+
				"1.2e+07\n"+
				"fallback_key_uses_total{kind=\"token\",place=\"2\"} "+
				"0\nfallback_key_uses_total{kind=\"webhook\",place=\"1\"} 1\nother{place=\"3\"} 7\n")
		}
	}))
	defer server.Close()
	addr := strings.TrimPrefix(server.URL, "http://")
	for _, row := range []struct {
		name, addr, tokens string
		state              State
		want               string
	}{
		{"none", addr, "", OK, "none are set"},
		{"two", addr, "one,two", OK, "token 1 used 12000000 times, token 2 never used, webhook 1 used once"},
		{"no server", "127.0.0.1:1", "one,two", Skip, "no server's /metrics at 127.0.0.1:1"},
	} {
		found, _ := examine(t, map[string]string{"FALLBACK_ADDR": row.addr, "FALLBACK_TOKENS": row.tokens})
		want(t, found["keys"], row.state, row.want)
	}
}

// TestPrint holds that a finding is one line.
func TestPrint(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		finding Finding
		want    string
	}{
		{Finding{"tls", OK, "none", ""}, "ok    tls         none\n"},
		{Finding{"management", Fail, "no\nanswer", "wait"}, "FAIL  management  no answer -> wait\n"},
	} {
		var out strings.Builder
		if err := row.finding.Print(&out); err != nil || out.String() != row.want {
			t.Errorf("got %q, %v, want %q", out.String(), err, row.want)
		}
	}
}

// TestSettings holds that every fault is told, that none shows a secret, and that nothing else is looked at then.
func TestSettings(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		env    map[string]string
		says   []string
		failed int
		rest   bool // it goes on
	}{
		{"nothing set", nil, []string{"AMQP_SERVER_URL: not set"}, 1, true},
		{"two faults", map[string]string{"AMQP_SERVER_URL": "http://geheim", "FALLBACK_MAX_AGE": "old"},
			[]string{"AMQP_SERVER_URL: not an AMQP URL", "FALLBACK_MAX_AGE: cannot read"}, 2, false},
		{"a token without its s", map[string]string{"FALLBACK_TOKEN": "geheim", "AMQP_SERVER_URL": "amqp://h"},
			[]string{"FALLBACK_TOKEN: no such setting; the nearest is FALLBACK_TOKENS"}, 1, false},
		{"a slash in the password", map[string]string{"AMQP_SERVER_URL": "amqp://geheim:12/34@broker"}, []string{"%2F"},
			1, false},
		{"a hash", map[string]string{"AMQP_SERVER_URL": "amqp://geheim:12#4@broker",
			"FALLBACK_TARGET_URL": "http://geheim:12?4@api"},
			[]string{"AMQP_SERVER_URL", "FALLBACK_TARGET_URL"}, 2, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			found, failed := examine(t, row.env)
			if failed != row.failed {
				t.Errorf("got %d failures, want %d", failed, row.failed)
			}
			for _, words := range row.says {
				want(t, found["settings"], Fail, words)
			}
			if rest := found["target"] != nil; rest != row.rest {
				t.Errorf("looked at the rest: got %v, want %v", rest, row.rest)
			}
			if strings.Contains(fmt.Sprint(found), "geheim") {
				t.Errorf("it shows a secret: %v", found)
			}
		})
	}
}

// TestStrays holds that a name which is no setting is told, and that all else is looked at.
func TestStrays(t *testing.T) {
	t.Parallel()
	found, _ := examine(t, map[string]string{"FALLBACK_TARGET": "http://geheim"})
	want(t, found["settings"], Warn, "FALLBACK_TARGET: no such setting, it has no effect the nearest is "+
		"FALLBACK_TARGET_URL")
	if found["target"] == nil || strings.Contains(fmt.Sprint(found), "geheim") {
		t.Errorf("got %v", found)
	}
}

func TestSenders(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		addr, tokens string
		want         State
	}{{"", "", Warn}, {":8080", "a", OK}, {"127.0.0.1:8080", "", OK}, {"localhost:80", "", OK}, {"[::1]:80", "", OK},
		{"0.0.0.0:80", "", Warn}, {"10.1.2.3:80", "", Warn}} {
		found, _ := examine(t, map[string]string{"FALLBACK_ADDR": row.addr, "FALLBACK_TOKENS": row.tokens})
		want(t, found["senders"], row.want, "")
	}
}

func TestScope(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		addresses string
		want      scope
	}{
		{"127.0.0.1", loopback}, {"::1 127.0.0.1", loopback}, {"172.18.0.2", private}, {"fd00::1", private},
		{"127.0.0.1 10.0.0.1", private},
		{"10.0.0.1 203.0.113.1", public}, {"203.0.113.1", public}, {"", public},
	} {
		var ips []net.IP
		for _, a := range strings.Fields(row.addresses) {
			ips = append(ips, net.ParseIP(a))
		}
		if got := scopeOf(ips); got != row.want {
			t.Errorf("%s: got %s, want %s", row.addresses, got, row.want)
		}
	}
}

func TestSupported(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{
		"3.10.8": true, "3.13.7": true, "4.0.5": true, "4.3": true, "4.3.1-rc.1": true,
		"3.9.29": false, "2.8": false, "5.0.0": false, "": false, "four.one": false,
	} {
		if got := supported(version); got != want {
			t.Errorf("%s: got %v, want %v", version, got, want)
		}
	}
}

func TestRole(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		can   can
		state State
		says  string
	}{
		{can{publish: true}, OK, "the server's"},
		{can{publish: true, main: true, parked: true}, OK, "the drain's"},
		{can{publish: true, main: true}, Warn, "parked"},
		{can{true, true, true, true}, Warn, "administrator"},
		{can{main: true}, Warn, "does not publish"},
		{can{}, Warn, "nothing"},
	} {
		want(t, []Finding{row.can.role()}, row.state, row.says)
	}
}

// asDefined is a queue as the definitions make it.
func asDefined(t *testing.T, queue string) (management.Queue, map[string]any) {
	t.Helper()
	names, err := topology.Of(topology.DefaultQueue)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range names.Policies() {
		if p.Queue == queue {
			return management.Queue{
				Name: queue, Type: "quorum", Policy: queue, Definition: asJSON(t, p.Definition),
				Arguments: map[string]any{"x-queue-type": "quorum"}, Members: []string{"a"}, Online: []string{"a"},
			}, p.Definition
		}
	}
	t.Fatalf("there is no policy for %s", queue)
	return management.Queue{}, nil
}

// asJSON is an object as the management API writes it.
func asJSON(t *testing.T, object map[string]any) (read map[string]any) {
	t.Helper()
	raw, err := json.Marshal(object)
	if err == nil {
		err = json.Unmarshal(raw, &read)
	}
	if err != nil {
		t.Fatal(err)
	}
	return read
}

// TestJudgeQueue holds what may differ from the definitions, and what may not.
func TestJudgeQueue(t *testing.T) {
	t.Parallel()
	type queue = management.Queue
	for _, row := range []struct {
		name   string
		change func(*queue)
		state  State
		says   string
	}{
		{"as defined", func(*queue) {}, OK, "0 % full"},
		{"classic", func(q *queue) { q.Type = "classic" }, Fail, "promise"},
		{"just made", func(q *queue) { q.Err, q.Definition = management.ErrNoStatistics, nil }, Warn, "not known yet"},
		{"no policy", func(q *queue) { q.Policy, q.Definition = "", nil }, Fail, "no policy"},
		{"drops", func(q *queue) { q.Definition["overflow"] = "drop-head" }, Fail, `overflow is "drop-head"`},
		{"drops by argument", func(q *queue) { q.Arguments["x-overflow"] = "drop-head" }, Fail,
			`overflow is "drop-head"`},
		{"parks elsewhere", func(q *queue) { q.Definition["dead-letter-routing-key"] = "x" }, Fail,
			"dead-letter-routing-key"},
		{"gives up early", func(q *queue) { q.Definition["delivery-limit"] = 20.0 }, Fail, "delivery-limit is 20"},
		{"default delivery limit", func(q *queue) { delete(q.Definition, "delivery-limit") }, Fail,
			"delivery-limit is not set"},
		{"never gives up", func(q *queue) { q.Definition["delivery-limit"] = -1.0 }, OK, ""},
		{"limits of one's own", func(q *queue) { q.Definition["max-length"] = 5.0 }, OK, ""},
		{"no limit", func(q *queue) { delete(q.Definition, "max-length-bytes") }, Warn, "no limit"},
		{"at 80 %", func(q *queue) { q.Messages = 800_000 }, OK, "80 % full"},
		{"filling", func(q *queue) { q.Messages = 810_000 }, Warn, "81 % full"},
		{"filling with bytes", func(q *queue) { q.Bytes = 4 << 30 / 10 * 9 }, Warn, "% full"},
		{"full", func(q *queue) { q.Messages = 1_000_000 }, Fail, "it is full"},
		{"full, without another limit", func(q *queue) {
			delete(q.Definition, "max-length-bytes")
			q.Messages = 1_000_000
		}, Fail, "it is full"},
		{"one down", func(q *queue) { q.Members = []string{"a", "b", "c"}; q.Online = []string{"a", "b"} }, Warn,
			"2 of 3"},
		{"no majority", func(q *queue) { q.Members = []string{"a", "b", "c"} }, Fail, "no majority"},
	} {
		t.Run(row.name, func(t *testing.T) {
			q, policy := asDefined(t, topology.DefaultQueue)
			row.change(&q)
			f := judgeQueue(q, policy, q)
			want(t, []Finding{f}, row.state, row.says)
			if (f.Advice == "") != (f.State == OK) {
				t.Errorf("%s, and the advice is %q", f.State, f.Advice)
			}
		})
	}
}

// TestJudgeRetryQueue holds that a retry queue is told that takes less than the main queue has, as those of older
// definitions.
func TestJudgeRetryQueue(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(main, retry *management.Queue)
		state  State
		says   string
	}{
		{"as defined", func(_, _ *management.Queue) {}, OK, "0 % full"},
		{"fewer", func(_, retry *management.Queue) { retry.Definition["max-length"] = 100_000.0 }, Warn,
			"it takes less than FallbackAPIQueue: max-length is 100000 and not 1000000"},
		{"fewer and smaller", func(_, retry *management.Queue) {
			retry.Definition["max-length"], retry.Definition["max-length-bytes"] = 100_000.0, 536870912.0
		}, Warn, "max-length is 100000 and not 1000000, max-length-bytes is 536870912 and not 4294967296"},
		{"less than a main queue of one's own", func(main, _ *management.Queue) { main.Definition["max-length"] = 5e6 },
			Warn, "max-length is 1000000 and not 5000000"},
		{"by the main queue's arguments", func(main, _ *management.Queue) { main.Arguments["x-max-length"] = 5e6 },
			Warn, "max-length is 1000000 and not 5000000"},
		{"more than the main queue", func(main, _ *management.Queue) { main.Definition["max-length"] = 5.0 }, OK, ""},
		{"less, as that has no limit", func(main, _ *management.Queue) { delete(main.Definition, "max-length") }, OK,
			""},
		{"the main queue's policy is not known yet",
			func(main, _ *management.Queue) { main.Err, main.Definition = management.ErrNoStatistics, nil }, OK, ""},
		{"full", func(_, retry *management.Queue) {
			retry.Definition["max-length"], retry.Messages = 100_000.0, 100_000
		}, Fail, "it is full"},
	} {
		t.Run(row.name, func(t *testing.T) {
			main, _ := asDefined(t, topology.DefaultQueue)
			retry, policy := asDefined(t, topology.DefaultQueue+".retry.10s")
			row.change(&main, &retry)
			f := judgeQueue(retry, policy, main)
			want(t, []Finding{f}, row.state, row.says)
			if (f.Advice == "") != (f.State == OK) {
				t.Errorf("%s, and the advice is %q", f.State, f.Advice)
			}
		})
	}
}

func TestJudgeNodes(t *testing.T) {
	t.Parallel()
	type node = management.Node
	up := node{Name: "a", Running: true}
	for _, row := range []struct {
		name  string
		nodes []node
		state State
		says  string
	}{
		{"one", []node{up}, OK, "one disk"},
		{"three", []node{up, up, up}, OK, "3 nodes"},
		{"none", nil, Warn, "no node"},
		{"memory", []node{up, {Name: "b", Running: true, MemoryAlarm: true}}, Fail, "memory alarm on b"},
		{"disk", []node{{Name: "b", Running: true, DiskAlarm: true}}, Fail, "disk alarm on b"},
		{"down", []node{up, up, {Name: "c"}}, Warn, "1 of 3 nodes are down: c"},
		{"split", []node{up, {Name: "b", Running: true, Partitions: []string{"a"}}}, Fail, "split"},
	} {
		t.Run(row.name, func(t *testing.T) { want(t, []Finding{judgeNodes(row.nodes)}, row.state, row.says) })
	}
}

// TestPasswords holds that a published password is told, and is a failure where strangers may knock.
func TestPasswords(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, amqp, management string
		want                   State
		says                   string
	}{
		{"none", "", "", Skip, ""},
		{"one's own", "amqp://admin:own@127.0.0.1:1/", "", OK, ""},
		{"demonstration", "amqp://admin:demonstration-admin@127.0.0.1:1/", "", Warn, "loopback"},
		{"of another user", "amqp://admin:demonstration-fallback-monitor@127.0.0.1:1/", "", OK, ""},
		{"guest", "amqp://guest:guest@127.0.0.1:1/", "", Warn, "RabbitMQ's own"},
		{"guest unsaid", "amqp://127.0.0.1:1/", "", Warn, "RabbitMQ's own"},
		{"the monitor's, in public", "amqp://admin:own@127.0.0.1:1/",
			"http://fallback-monitor:demonstration-fallback-monitor@203.0.113.1:1", Fail, "public"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := survey{
				config: config.Config{AMQPServerURL: config.Secret(row.amqp),
					ManagementURL: config.Secret(row.management)},
				broker: brokerSurvey{scope: loopback}, management: managementSurvey{scope: public},
			}
			got := s.concludePasswords()
			want(t, got, row.want, row.says)
			if len(got) != 1 {
				t.Errorf("got %v, want one finding", got)
			}
		})
	}
}

// TestTarget holds what is said of a primary: alive, down, one that leads elsewhere, and fallback itself.
func TestTarget(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		})
	}
	ours := http.NewServeMux() // as `fallback serve` answers
	ours.Handle("/", answer(404, `{"type":"urn:fallback:problem:not-found"}`))
	ours.Handle("/livez", answer(200, `{"status":"live"}`+"\n"))
	theirs := http.NewServeMux()
	theirs.Handle("/livez", answer(200, `{"status":"live"}`+"\n"))
	for _, row := range []struct {
		name    string
		primary http.Handler
		probe   string
		want    State
		says    string
	}{
		{"alive", answer(200, "hello"), "/", OK, "is alive (200"},
		{"wants a token", answer(401, ""), "/", OK, "is alive (401"},
		{"down", answer(503, ""), "/", Warn, "503 Service Unavailable"},
		{"fallback", ours, "/", Fail, "fallback itself"},
		{"fallback's health", ours, "/livez", Fail, "fallback itself"},
		{"a like health", theirs, "/livez", OK, "is alive"},
		{"a door that lets replays in", answer(200, "{\"status\":\"ready\"}\n"), "/", Warn, "second Fallback"},
		{"leads within", http.RedirectHandler("/login", http.StatusFound), "/", OK, "is alive (302"},
		{"leads elsewhere", http.RedirectHandler("https://api.example/", http.StatusMovedPermanently), "/", Warn,
			"elsewhere"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(row.primary)
			defer server.Close()
			u, _ := url.Parse(server.URL)
			u.User = url.UserPassword("user", "geheim")
			found, _ := examine(t, map[string]string{"FALLBACK_TARGET_URL": u.String(),
				"FALLBACK_PROBE_PATH": row.probe})
			want(t, found["target"], row.want, row.says)
			if strings.Contains(fmt.Sprint(found), "geheim") {
				t.Errorf("it shows the password: %v", found)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(nil)
		server.Close()
		found, _ := examine(t, map[string]string{"FALLBACK_TARGET_URL": server.URL})
		want(t, found["target"], Warn, "connection refused")
	})
	t.Run("unknown certificate", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewTLSServer(answer(200, ""))
		server.Config.ErrorLog = nil
		defer server.Close()
		found, _ := examine(t, map[string]string{"FALLBACK_TARGET_URL": server.URL})
		want(t, found["target"], Fail, "certificate")
	})
}

// TestBrokerSaysNothing holds that a broker that takes a connection and no more ends in a finding, and not in a guess
// at the password, and that all of it is bounded.
func TestBrokerSaysNothing(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	start := time.Now()
	found, failed := examine(t, map[string]string{
		"AMQP_SERVER_URL": "amqp://u:geheim@" + ln.Addr().String(), "RABBITMQ_MANAGEMENT_URL": "http://u:geheim@" +
			ln.Addr().String(),
	})
	const slack = 5 * time.Second // for a slow machine
	if took := time.Since(start); took > examineTime+slack {
		t.Errorf("it took %s, want %s", took, examineTime)
	}
	want(t, found["login"], Fail, "no answer in time")
	want(t, found["management"], Fail, "no answer in time")
	if failed != 2 {
		t.Errorf("got %d failures, want 2: %v", failed, found)
	}
	if strings.Contains(fmt.Sprint(found), "geheim") {
		t.Errorf("it shows the password: %v", found)
	}
}

// TestExpired holds that an expired certificate is told apart from an unknown one: each needs something else.
func TestExpired(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		until time.Duration
		says  string
	}{{"expired", -time.Hour, "renew"}, {"known", time.Hour, ""}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			certificate, file := selfSigned(t, time.Now().Add(row.until))
			ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go func() {
				for conn, err := ln.Accept(); err == nil; conn, err = ln.Accept() {
					_ = conn.(*tls.Conn).Handshake()
					_ = conn.Close() // it is no broker
				}
			}()
			found, _ := examine(t, map[string]string{"AMQP_SERVER_URL": "amqps://u:geheim@" + ln.Addr().String() +
				"/?cacertfile=" + file})
			if row.says == "" {
				want(t, found["tls"], Skip, "no connection")
				want(t, found["login"], Fail, "")
				return
			}
			want(t, found["tls"], Fail, row.says)
		})
	}
}

// selfSigned makes a certificate for 127.0.0.1, and a file with it.
func selfSigned(t *testing.T, until time.Time) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: until.Add(-24 * time.Hour), NotAfter: until,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:        true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// TestEnded holds that an interrupted doctor says so of each check that is left.
func TestEnded(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var got []Finding
	Examine(ctx, nil, func(f Finding) { got = append(got, f) })
	if len(got) != len(checks) || got[0].State != Skip {
		t.Errorf("got %v, want %d times skip", got, len(checks))
	}
}
