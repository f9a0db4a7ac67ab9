package topology

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func of(t *testing.T, queue string) Topology {
	t.Helper()
	topology, err := Of(queue)
	if err != nil {
		t.Fatal(err)
	}
	return topology
}

// TestNames holds the names that people and other programs know.
func TestNames(t *testing.T) {
	t.Parallel()
	want := Topology{
		Main:   "FallbackAPIQueue",
		Parked: "FallbackAPIQueue.parked",
		Retries: []Retry{
			{"FallbackAPIQueue.retry.10s", 10 * time.Second},
			{"FallbackAPIQueue.retry.1m", time.Minute},
			{"FallbackAPIQueue.retry.10m", 10 * time.Minute},
		},
	}
	got := of(t, DefaultQueue)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, queue := range got.Queues() {
		if !strings.HasPrefix(queue, DefaultQueue) {
			t.Errorf("queue %q does not take its name from the main one", queue)
		}
	}
	if n := len(got.Queues()); n != 5 {
		t.Errorf("got %d queues, want 5", n)
	}
}

func TestQueueName(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, queue string
		ok          bool
	}{
		{"the default", DefaultQueue, true},
		{"one letter", "q", true},
		{"200 bytes", strings.Repeat("q", 200), true},
		{"201 bytes", strings.Repeat("q", 201), false},
		{"nothing", "", false},
		{"odd but printable", `a.b+c(d)[e]^$|\*?`, true},
		{"reserved", "amq.default", false},
		{"reserved only as a prefix", "my-amq.queue", true},
		{"a space", "a b", false},
		{"a line end", "a\n", false},
		{"not ASCII", "Schlange-ä", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if _, err := Of(row.queue); (err == nil) != row.ok {
				t.Errorf("%q: got %v, want ok %v", row.queue, err, row.ok)
			}
		})
	}
}

// file is what the tests read of a definitions file.
type (
	file struct {
		VHosts []struct {
			Name     string
			Metadata map[string]any
		}
		Users []struct {
			Name      string
			Tags      []string
			Hash      string `json:"password_hash"`
			Algorithm string `json:"hashing_algorithm"`
		}
		Queues []struct {
			Name, VHost string
			Durable     bool
			Arguments   map[string]any
		}
		Policies []policy
	}
	policy struct {
		Name, Pattern string
		Definition    map[string]any
	}
)

func definitionsOf(t *testing.T, topology Topology) file {
	t.Helper()
	var f file
	if err := json.Unmarshal(topology.Definitions("for a test", Demonstration), &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestDefinitions holds what the promise of a 202 rests on: quorum queues, on durable storage, that refuse when they
// are full and delete nothing.
func TestDefinitions(t *testing.T) {
	t.Parallel()
	topology := of(t, "orders")
	f := definitionsOf(t, topology)
	if len(f.VHosts) != 1 || f.VHosts[0].Name != "/" || f.VHosts[0].Metadata["default_queue_type"] != "quorum" {
		t.Errorf("virtual hosts: got %+v", f.VHosts)
	}
	var queues []string
	for _, q := range f.Queues {
		queues = append(queues, q.Name)
		if q.Arguments["x-queue-type"] != "quorum" || !q.Durable || q.VHost != "/" {
			t.Errorf("queue %s: got %+v", q.Name, q)
		}
	}
	if want := topology.Queues(); !slices.Equal(queues, want) {
		t.Errorf("queues: got %q, want %q", queues, want)
	}
	for _, p := range f.Policies {
		d := p.Definition
		if d["overflow"] != "reject-publish" || d["max-length"] == nil || d["max-length-bytes"] == nil {
			t.Errorf("policy %s: a full queue drops: %v", p.Name, d)
		}
		// all that is on one may have to go to another
		for _, limit := range []string{"max-length", "max-length-bytes"} {
			if of := f.Policies[0].Definition[limit]; d[limit] != of {
				t.Errorf("policy %s: %s is %v, and that of the main queue %v", p.Name, limit, d[limit], of)
			}
		}
		if d["dead-letter-exchange"] != nil && d["dead-letter-strategy"] != "at-least-once" {
			t.Errorf("policy %s: dead letters may be lost: %v", p.Name, d)
		}
		if d["message-ttl"] == nil && d["delivery-limit"] != float64(deliveryLimit) {
			t.Errorf("policy %s: a delivery limit deletes: %v", p.Name, d)
		}
	}
	for name, key := range map[string]string{
		"orders": "orders.parked", "orders.retry.10s": "orders", "orders.retry.1m": "orders",
		"orders.retry.10m": "orders",
	} {
		i := slices.IndexFunc(f.Policies, func(p policy) bool { return p.Name == name })
		if i < 0 || f.Policies[i].Definition["dead-letter-routing-key"] != key {
			t.Errorf("policy %s: want dead letters to go to %s", name, key)
		}
	}
}

// TestOddNames holds that a name which means something in a regular expression matches itself in policies and
// permissions, and nothing else.
func TestOddNames(t *testing.T) {
	t.Parallel()
	const queue = `a.b+c(d)[e]^$|\*?`
	topology := of(t, queue)
	f := definitionsOf(t, topology)
	for _, p := range f.Policies {
		if pattern := regexp.MustCompile(p.Pattern); !pattern.MatchString(p.Name) {
			t.Errorf("policy %s: pattern %s does not match its queue", p.Name, p.Pattern)
		}
	}
	main := regexp.MustCompile(f.Policies[0].Pattern)
	for _, other := range []string{topology.Parked, `aXb+c(d)[e]^$|\*?`, "x" + queue, "a.b", ""} {
		if main.MatchString(other) {
			t.Errorf("the pattern of %s matches %s", queue, other)
		}
	}
	for _, u := range topology.Users() {
		write, read := regexp.MustCompile(u.Write), regexp.MustCompile(u.Read)
		for _, row := range []struct {
			name        string
			write, read bool
		}{
			{"amq.default", u.Name == Admin || u.Name == Publisher || u.Name == Drainer, u.Name == Admin},
			{topology.Main, u.Name == Admin || u.Name == Publisher, u.Name == Admin || u.Name == Drainer},
			{topology.Parked, u.Name == Admin, u.Name == Admin || u.Name == Drainer},
			{topology.Retries[0].Name, u.Name == Admin, u.Name == Admin},
			{"amqXdefault", u.Name == Admin, u.Name == Admin},
			{`aXb+c(d)[e]^$|\*?`, u.Name == Admin, u.Name == Admin},
		} {
			if got := write.MatchString(row.name); got != row.write {
				t.Errorf("%s may write %s: got %v, want %v", u.Name, row.name, got, row.write)
			}
			if got := read.MatchString(row.name); got != row.read {
				t.Errorf("%s may read %s: got %v, want %v", u.Name, row.name, got, row.read)
			}
		}
		if configure := regexp.MustCompile(u.Configure); configure.MatchString(topology.Main) != (u.Name == Admin) {
			t.Errorf("%s may configure by %s", u.Name, u.Configure)
		}
	}
}

// TestPasswordHash holds the form that RabbitMQ checks a password with: base64 of four bytes of salt and the SHA-256 of
// these and the password. No definitions file shows the password itself, and none has a user named guest.
func TestPasswordHash(t *testing.T) {
	t.Parallel()
	// From RabbitMQ's documentation of password hashes: salt 908DC60A and password test12.
	documented := Password{Plain: "test12", Salt: [4]byte{0x90, 0x8d, 0xc6, 0x0a}}
	if got, want := documented.hash(), "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	topology := of(t, DefaultQueue)
	raw := topology.Definitions("for a test", Demonstration)
	names := map[string]bool{}
	for _, u := range definitionsOf(t, topology).Users {
		names[u.Name] = true
		password := Demonstration(u.Name)
		hash, err := base64.StdEncoding.DecodeString(u.Hash)
		if err != nil || len(hash) != 4+sha256.Size {
			t.Fatalf("%s: hash %q: %v", u.Name, u.Hash, err)
		}
		if sum := sha256.Sum256(append(hash[:4:4], password.Plain...)); !bytes.Equal(sum[:], hash[4:]) {
			t.Errorf("%s: the hash is not of its password", u.Name)
		}
		if u.Algorithm != "rabbit_password_hashing_sha256" || u.Tags == nil {
			t.Errorf("%s: the broker's import refuses %+v", u.Name, u)
		}
		if bytes.Contains(raw, []byte(password.Plain)) {
			t.Errorf("%s: the file shows the password", u.Name)
		}
	}
	if want := []string{Admin, Publisher, Drainer, Monitor}; len(names) != len(want) || names["guest"] {
		t.Errorf("users: got %v, want %v", names, want)
	}
}

// TestDefinitionsAreStable holds that the same topology makes the same bytes, so that a committed file can be compared.
func TestDefinitionsAreStable(t *testing.T) {
	t.Parallel()
	first := of(t, DefaultQueue).Definitions("c", Demonstration)
	for range 20 {
		if again := of(t, DefaultQueue).Definitions("c", Demonstration); !bytes.Equal(first, again) {
			t.Fatalf("-first +again:\n%s", cmp.Diff(string(first), string(again)))
		}
	}
}
