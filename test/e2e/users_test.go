//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/topology"
	"fallback/test/harness"
)

const (
	admin, publisher, drainer, monitor = topology.Admin, topology.Publisher, topology.Drainer, topology.Monitor

	mainQueue, parkedQueue, retryQueue = "FallbackAPIQueue", "FallbackAPIQueue.parked", "FallbackAPIQueue.retry.10s"
)

var everyone = []string{admin, publisher, drainer, monitor}

// TestUsersOverAMQP holds that every user may do what it needs and nothing else. A user that is in no list of an
// operation is refused by the broker with a 403; every other error is a fault of the test.
func TestUsersOverAMQP(t *testing.T) {
	t.Parallel()
	operations := []struct {
		name string
		try  func(*amqp.Channel) error
		may  []string
		// before43 are those who may before RabbitMQ 4.3, where they are others.
		before43 []string
	}{
		{name: "publish to main", try: publish("", mainQueue), may: []string{admin, publisher, drainer}},
		// Permissions know the default exchange and not the keys that are used on it.
		{name: "publish to parked", try: publish("", parkedQueue), may: []string{admin, publisher, drainer}},
		{name: "publish to amq.topic", try: publish("amq.topic", mainQueue), may: []string{admin}},
		{name: "publish to amq.direct", try: publish("amq.direct", mainQueue), may: []string{admin}},
		{name: "publish to amq.fanout", try: publish("amq.fanout", mainQueue), may: []string{admin}},

		{name: "consume main", try: consume(mainQueue), may: []string{admin, drainer}},
		{name: "consume parked", try: consume(parkedQueue), may: []string{admin, drainer}},
		{name: "consume retry", try: consume(retryQueue), may: []string{admin}},
		{name: "get from main", try: get(mainQueue), may: []string{admin, drainer}},
		{name: "get from retry", try: get(retryQueue), may: []string{admin}},
		{name: "purge main", try: purge(mainQueue), may: []string{admin, drainer}}, // who may read may take
		{name: "purge retry", try: purge(retryQueue), may: []string{admin}},

		{name: "passive declare of main", try: look(mainQueue), may: []string{admin, publisher, drainer},
			before43: everyone},
		{name: "passive declare of parked", try: look(parkedQueue), may: []string{admin, drainer}, before43: everyone},
		{name: "passive declare of retry", try: look(retryQueue), may: []string{admin}, before43: everyone},

		{name: "declare main as it is", try: declare(mainQueue), may: []string{admin}},
		{name: "declare a new queue", try: declare("new"), may: []string{admin}},
		{name: "declare an exclusive queue", try: declareExclusive, may: []string{admin}},
		{name: "declare an exchange", try: declareExchange, may: []string{admin}},
		{name: "bind main", try: bind(mainQueue), may: []string{admin}},
		{name: "delete an exchange", try: deleteExchange, may: []string{admin}},
		{name: "delete main", try: deleteQueue(mainQueue), may: []string{admin}}, // last: it is gone then
	}
	for _, user := range everyone {
		t.Run(user, func(t *testing.T) {
			t.Parallel()
			vhost := broker.VHost(t)
			for _, o := range operations {
				t.Run(o.name, func(t *testing.T) {
					may := o.may
					if o.before43 != nil && harness.Version() != "4.3" {
						may = o.before43
					}
					err := o.try(vhost.Channel(t, user)) // of its own: a refusal closes it
					var refusal *amqp.Error
					refused := errors.As(err, &refusal) && refusal.Code == amqp.AccessRefused
					checkAllowed(t, slices.Contains(may, user), refused, err)
				})
			}
		})
	}
}

// checkAllowed compares what came of a try with what should have.
func checkAllowed(t *testing.T, want, refused bool, err error) {
	t.Helper()
	switch {
	case err != nil && !refused:
		t.Errorf("neither allowed nor refused: %v", err)
	case want && refused:
		t.Errorf("%v, want it allowed", err)
	case !want && !refused:
		t.Error("it was allowed, want it refused")
	}
}

// publish waits for the confirm; a refusal comes instead of it.
func publish(exchange, key string) func(*amqp.Channel) error {
	return func(ch *amqp.Channel) error {
		closes := ch.NotifyClose(make(chan *amqp.Error, 1))
		if err := ch.Confirm(false); err != nil {
			return err
		}
		confirm, err := ch.PublishWithDeferredConfirm(exchange, key, false, false, amqp.Publishing{Body: []byte("x")})
		if err != nil {
			return err
		}
		late := time.After(harness.Patience)
		select {
		case <-confirm.Done():
		case <-late:
			return errors.New("no confirm came")
		}
		if confirm.Acked() {
			return nil
		}
		select {
		case err := <-closes:
			return err
		case <-late:
			return errors.New("the message was nacked")
		}
	}
}

func consume(queue string) func(*amqp.Channel) error {
	return func(ch *amqp.Channel) error {
		_, err := ch.Consume(queue, "", false, false, false, false, nil)
		return err
	}
}

func get(queue string) func(*amqp.Channel) error {
	return func(ch *amqp.Channel) error {
		_, _, err := ch.Get(queue, false)
		return err
	}
}

func purge(queue string) func(*amqp.Channel) error {
	return func(ch *amqp.Channel) error {
		_, err := ch.QueuePurge(queue, false)
		return err
	}
}

func look(queue string) func(*amqp.Channel) error {
	return func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		return err
	}
}

func declare(queue string) func(*amqp.Channel) error {
	return func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(queue, true, false, false, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum})
		return err
	}
}

// declareExclusive declares what a client would for answers: a queue of its own, with a name that the broker makes.
func declareExclusive(ch *amqp.Channel) error {
	_, err := ch.QueueDeclare("", false, true, true, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeClassic})
	return err
}

func declareExchange(ch *amqp.Channel) error {
	return ch.ExchangeDeclare("new", amqp.ExchangeDirect, true, false, false, false, nil)
}

func deleteExchange(ch *amqp.Channel) error { return ch.ExchangeDelete("new", false, false) }

func bind(queue string) func(*amqp.Channel) error {
	return func(ch *amqp.Channel) error { return ch.QueueBind(queue, "key", "amq.direct", false, nil) }
}

func deleteQueue(queue string) func(*amqp.Channel) error {
	return func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(queue, false, false, false)
		return err
	}
}

type object = map[string]any

// TestUsersOverManagement holds that the monitor may read through the management API and no more, and that the users of
// the server and the drain have no part in it.
func TestUsersOverManagement(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	t.Cleanup(func() {
		_ = broker.Call(http.MethodDelete, "/api/vhosts/new", nil, nil) // there or not
		_ = broker.Call(http.MethodDelete, "/api/users/new", nil, nil)
	})
	queue := "/api/queues/" + vhost.Name + "/" + mainQueue
	readers := []string{admin, monitor}
	for _, row := range []struct {
		name, method, path string
		in                 any
		may                []string
	}{
		{"who am I", http.MethodGet, "/api/whoami", nil, readers},
		{"all queues", http.MethodGet, "/api/queues", nil, readers},
		{"the main queue", http.MethodGet, queue, nil, readers},
		{"policies", http.MethodGet, "/api/policies/" + vhost.Name, nil, readers},
		{"nodes", http.MethodGet, "/api/nodes", nil, readers},
		{"alarms", http.MethodGet, "/api/health/checks/alarms", nil, readers},
		{"users", http.MethodGet, "/api/users", nil, []string{admin}},
		{"definitions", http.MethodGet, "/api/definitions", nil, []string{admin}},
		{"make a virtual host", http.MethodPut, "/api/vhosts/new", object{}, []string{admin}},
		{"make a user", http.MethodPut, "/api/users/new", object{"password": "x", "tags": ""}, []string{admin}},
		{"make a policy", http.MethodPut, "/api/policies/" + vhost.Name + "/new",
			object{"pattern": "^new$", "definition": object{"max-length": 1}}, []string{admin}},
		{"make a queue", http.MethodPut, "/api/queues/" + vhost.Name + "/new", object{"durable": true},
			[]string{admin}},
		{"publish", http.MethodPost, "/api/exchanges/" + vhost.Name + "/amq.default/publish",
			object{"properties": object{}, "routing_key": mainQueue, "payload": "x", "payload_encoding": "string"},
			[]string{admin}},
		{"read messages", http.MethodPost, queue + "/get",
			object{"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}, []string{admin}},
		{"purge", http.MethodDelete, queue + "/contents", nil, []string{admin}},
		{"delete a queue", http.MethodDelete, queue, nil, []string{admin}},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, user := range []string{monitor, drainer, publisher, admin} { // the admin last: it succeeds
				t.Run(user, func(t *testing.T) {
					status, err := harness.Manage(row.method, broker.ManagementURL(user)+row.path, row.in, nil)
					// What it does over AMQP for its user is answered with AMQP's refusal inside a 400.
					refused := status == http.StatusUnauthorized ||
						status == http.StatusBadRequest && strings.Contains(err.Error(), "403 ACCESS_REFUSED")
					checkAllowed(t, slices.Contains(row.may, user), refused, err)
				})
			}
		})
	}
}

// TestNoGuest holds that RabbitMQ's own user is not there, and that nobody gets in with a wrong password or with none.
// The test comes from outside the broker's loopback; without our definitions the image lets guest in from there.
func TestNoGuest(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, user, password string }{
		{"guest", "guest", "guest"},
		{"guest without password", "guest", ""},
		{"nobody", "", ""},
		{"admin with a wrong password", admin, "wrong"},
		{"admin without password", admin, ""},
		{"publisher with the drainer's password", publisher, topology.Demonstration(drainer).Plain},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel() // the broker takes three seconds to refuse
			err := logIn(broker, &amqp.PlainAuth{Username: row.user, Password: row.password})
			if !errors.Is(err, amqp.ErrCredentials) {
				t.Errorf("AMQP: got %v, want %v", err, amqp.ErrCredentials)
			}
			url := fmt.Sprintf("http://%s:%s@%s/api/whoami", row.user, row.password, broker.Management)
			if status, err := harness.Manage(http.MethodGet, url, nil, nil); status != http.StatusUnauthorized {
				t.Errorf("management API: got %d (%v), want 401", status, err)
			}
		})
	}
	t.Run("anonymous", func(t *testing.T) {
		t.Parallel()
		// RabbitMQ 4 offers this to everybody and takes them for guest; 3.10 does not offer it.
		if err := logIn(broker, anonymous{}); !errors.Is(err, amqp.ErrCredentials) && !errors.Is(err, amqp.ErrSASL) {
			t.Errorf("got %v, want %v or %v", err, amqp.ErrCredentials, amqp.ErrSASL)
		}
	})
}

// logIn connects to the broker and says how that went.
func logIn(b *harness.Broker, auth amqp.Authentication) error {
	conn, err := amqp.DialConfig("amqp://"+b.AMQP+"/", amqp.Config{SASL: []amqp.Authentication{auth}})
	if err != nil {
		return err
	}
	return conn.Close()
}

// anonymous is the SASL mechanism of RFC 4505.
type anonymous struct{}

func (anonymous) Mechanism() string { return "ANONYMOUS" }
func (anonymous) Response() string  { return "" }

// TestImported holds that what the broker has after it booted is what the topology says, no more and no less.
func TestImported(t *testing.T) {
	want, err := topology.Of(articleQueue)
	if err != nil {
		t.Fatal(err)
	}
	checkImported(t, broker.ManagementURL(admin), want)
}

// checkImported asks the management API, as an administrator, for everything that the definitions make.
func checkImported(t *testing.T, management string, want topology.Topology) {
	t.Helper()
	list := func(path string) map[string]object {
		t.Helper()
		var rows []object
		if _, err := harness.Manage(http.MethodGet, management+path, nil, &rows); err != nil {
			t.Fatal(err)
		}
		byName := map[string]object{}
		for _, row := range rows {
			name, ok := row["name"].(string)
			if !ok {
				name, _ = row["user"].(string)
			}
			byName[name] = row
		}
		return byName
	}
	names := func(rows map[string]object) []string { return slices.Sorted(maps.Keys(rows)) }

	var queues map[string]object
	var bare string // a queue without a policy
	defer func() {
		if bare != "" {
			t.Errorf("queue %s has no policy", bare)
		}
	}()
	harness.Eventually(t, "the broker to tell every queue's policy, with its statistics", func() bool {
		queues, bare = list("/api/queues/%2F"), ""
		for name, q := range queues {
			if q["policy"] == nil {
				bare = name
			}
		}
		return bare == ""
	})
	policies := committedPolicies(t)
	if got, want := names(queues), slices.Sorted(slices.Values(want.Queues())); !slices.Equal(got, want) {
		t.Errorf("queues: got %q, want %q", got, want)
	}
	for name, q := range queues {
		if q["type"] != "quorum" || q["durable"] != true || q["auto_delete"] != false {
			t.Errorf("queue %s: got type %v, durable %v, auto_delete %v", name, q["type"], q["durable"],
				q["auto_delete"])
		}
		if q["policy"] != name {
			t.Errorf("queue %s: got policy %v, want the one of its name", name, q["policy"])
		}
		if got := q["effective_policy_definition"]; !reflect.DeepEqual(got, policies[name]) {
			t.Errorf("queue %s: got the policy\n%v, want\n%v", name, got, policies[name])
		}
	}

	users, permissions := list("/api/users"), list("/api/vhosts/%2F/permissions")
	var wantUsers []string
	for _, u := range want.Users() {
		wantUsers = append(wantUsers, u.Name)
		if got, want := fmt.Sprint(users[u.Name]["tags"]), fmt.Sprint(u.Tags); got != want {
			t.Errorf("tags of %s: got %s, want %s", u.Name, got, want)
		}
		p := permissions[u.Name]
		if p["configure"] != u.Configure || p["write"] != u.Write || p["read"] != u.Read {
			t.Errorf("permissions of %s: got %v, want %+v", u.Name, p, u)
		}
	}
	slices.Sort(wantUsers)
	if got := names(users); !slices.Equal(got, wantUsers) {
		t.Errorf("users: got %q, want %q", got, wantUsers)
	}
	if got := names(permissions); !slices.Equal(got, wantUsers) {
		t.Errorf("users with permissions: got %q, want %q", got, wantUsers)
	}

	var vhost struct {
		DefaultQueueType string `json:"default_queue_type"`
	}
	if _, err := harness.Manage(http.MethodGet, management+"/api/vhosts/%2F", nil, &vhost); err != nil {
		t.Fatal(err)
	}
	if vhost.DefaultQueueType != "quorum" {
		t.Errorf("default queue type: got %q, want quorum", vhost.DefaultQueueType)
	}
}

// committedPolicies are the definitions of the policies in rabbitmq/definitions.json, by name.
func committedPolicies(t *testing.T) map[string]any {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(harness.Root(), "rabbitmq", "definitions.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Policies []object `json:"policies"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	policies := map[string]any{}
	for _, p := range d.Policies {
		policies[p["name"].(string)] = p["definition"]
	}
	return policies
}
