package harness

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/topology"
)

// VHost is a virtual host with the queues, policies and permissions of the repository's definitions, for one test
// alone.
type VHost struct {
	*Broker
	Name string
}

var vhosts atomic.Int64

// VHost makes one, and removes it when the test ends.
func (b *Broker) VHost(t testing.TB) *VHost {
	t.Helper()
	v := &VHost{b, fmt.Sprintf("test-%d", vhosts.Add(1))}
	raw, err := os.ReadFile(filepath.Join(Root(), "rabbitmq", "definitions.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Permissions []map[string]any `json:"permissions"`
		Queues      []map[string]any `json:"queues"`
		Policies    []map[string]any `json:"policies"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	name := url.PathEscape(v.Name)
	v.must(t, http.MethodPut, "/api/vhosts/"+name, map[string]any{"default_queue_type": "quorum"})
	t.Cleanup(func() { _ = b.Call(http.MethodDelete, "/api/vhosts/"+name, nil, nil) }) // the broker may be gone by then
	for _, p := range d.Permissions {
		v.must(t, http.MethodPut, fmt.Sprintf("/api/permissions/%s/%s", name, p["user"]), p)
	}
	for _, p := range d.Policies {
		v.must(t, http.MethodPut, fmt.Sprintf("/api/policies/%s/%s", name, p["name"]), p)
	}
	for _, q := range d.Queues {
		v.must(t, http.MethodPut, fmt.Sprintf("/api/queues/%s/%s", name, q["name"]), q)
	}
	return v
}

// Main is the virtual host of the definitions themselves.
func (b *Broker) Main() *VHost { return &VHost{b, topology.VHost} }

func (v *VHost) must(t testing.TB, method, path string, in any) {
	t.Helper()
	if err := v.Call(method, path, in, nil); err != nil {
		t.Fatal(err)
	}
}

// URL is the AMQP URL of one of the definitions' users on this virtual host.
func (v *VHost) URL(user string) string { return v.Broker.URL(user, v.Name) }

// Channel opens a channel as one of the definitions' users; it is closed when the test ends.
func (v *VHost) Channel(t testing.TB, user string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(v.URL(user))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// Reader takes messages off a queue.
type Reader struct {
	deliveries <-chan amqp.Delivery
}

// Reader consumes as the drainer's user, until the test ends.
func (v *VHost) Reader(t testing.TB, queue string) *Reader {
	t.Helper()
	ch := v.Channel(t, topology.Drainer)
	if err := ch.Qos(100, 0, false); err != nil {
		t.Fatal(err)
	}
	deliveries, err := ch.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &Reader{deliveries}
}

// Next is the next message, acknowledged; the test fails when none comes.
func (r *Reader) Next(t testing.TB) amqp.Delivery {
	t.Helper()
	select {
	case d, ok := <-r.deliveries:
		if !ok {
			t.Fatal("the consumer was closed")
		}
		if err := d.Ack(false); err != nil {
			t.Fatal(err)
		}
		return d
	case <-time.After(Patience):
		t.Fatal("no message came")
	}
	return amqp.Delivery{}
}

// Count is how many messages are ready on a queue.
func (v *VHost) Count(t testing.TB, queue string) int {
	t.Helper()
	conn, err := amqp.Dial(v.URL(topology.Admin))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return q.Messages
}
