//go:build e2e

package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// TestUnreadable holds that a message which the client library cannot read costs nobody else anything: the drain parks
// it with a reason and keeps its connections, and the operator's commands see it and settle it, on both queues.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	publisher := vhost.Channel(t, topology.Admin)
	if err := publisher.Confirm(false); err != nil {
		t.Fatal(err)
	}
	bad := harness.Unreadables()
	// the frame of its headers is full, and the broker adds its counts
	bad["grown"] = amqp.Table{"much": strings.Repeat("h", 131072-8-68)}
	publish := func(id string) {
		t.Helper()
		confirm, err := publisher.PublishWithDeferredConfirm("", topology.DefaultQueue, true, false, amqp.Publishing{
			MessageId: id, Headers: bad[id], DeliveryMode: amqp.Persistent, ContentType: "text/x-odd", Type: "odd",
			CorrelationId: "c-" + id,
			Body:          []byte("body of " + id),
		})
		if err != nil || !confirm.Wait() {
			t.Fatalf("publish %s: %v", id, err)
		}
	}
	publish("grown")
	grow(t, vhost, topology.DefaultQueue)
	publish("nested-40")
	enqueue(t, server, 5, "/first")
	publish("array-9000")
	enqueue(t, server, 5, "/second")

	fallback := build(t)
	env := harness.Settings{"AMQP_SERVER_URL": vhost.URL(topology.Drainer)}
	if seen := peekAt(t, fallback, env, "main"); len(seen) != 13 || seen["nested-40"].Error == "" ||
		seen["array-9000"].Error == "" || seen["grown"].Error == "" {
		t.Errorf("on the main queue peek sees %+v", seen)
	}

	primary := harness.NewPrimary(t, nil)
	dials, address := countDials(t, vhost.AMQP)
	d, _ := vhost.Drain(t, primary, harness.Settings{"AMQP_SERVER_URL": strings.Replace(vhost.URL(topology.Drainer),
		vhost.AMQP, address, 1)})
	if r := once(t, d); r.Delivered != 10 || r.Parked != 3 || r.Waiting != 0 {
		t.Errorf("got %+v, want 10 delivered and 3 parked", r)
	}
	checkOnce(t, primary, 5, "/first")
	checkOnce(t, primary, 5, "/second")
	if n := dials.Load(); n != 2 { // to take, and to move
		t.Errorf("the drain made %d connections, want 2", n)
	}

	seen := peekAt(t, fallback, env, "parked")
	for id, want := range map[string]string{"nested-40": "nested", "array-9000": "elements", "grown": "frame"} {
		if row := seen[id]; !strings.Contains(row.Reason, "cannot be read") || !strings.Contains(row.Reason, want) {
			t.Errorf("%s is parked as %+v", id, row)
		}
	}
	fallback.run(t, env, "redrive", "--id", "nested-40").check(t, 0, []string{"redriven 1", "2 left"}, nil)
	fallback.run(t, env, "discard", "--yes", "--id", "grown").check(t, 0, []string{"discarded 1", "1 left"}, nil)
	if moved := takeOne(t, vhost, topology.DefaultQueue); string(moved.Body) != "body of nested-40" ||
		moved.Type != "odd" || moved.ContentType != "text/x-odd" ||
		moved.CorrelationId != "c-nested-40" || moved.MessageId != "nested-40" ||
		len(moved.Headers["fallback-unreadable-headers"].([]byte)) < 40*8 {
		t.Errorf("it was moved twice, and is %+v", moved)
	}

	confirm, err := publisher.PublishWithDeferredConfirm("", parkedQueue, true, false,
		amqp.Publishing{MessageId: "direct", Headers: bad["nested-40"], Body: []byte("b")})
	if err != nil || !confirm.Wait() {
		t.Fatal(err)
	}
	if seen := peekAt(t, fallback, env, "parked"); seen["direct"].Error == "" || len(seen) != 2 {
		t.Errorf("on the parked queue peek sees %+v", seen)
	}
	fallback.run(t, env, "discard", "--yes", "--all").check(t, 0, []string{"discarded 2", "0 left"}, nil)
}

// grow has the broker add its counts to the only message of a queue, as it does when one comes back. 3.10 adds them to
// what is got for the first time, too, and so the library loses its connection here.
func grow(t *testing.T, vhost *harness.VHost, queue string) {
	t.Helper()
	if d, ok, err := vhost.Channel(t, topology.Admin).Get(queue, false); err == nil && ok {
		if err := d.Reject(true); err != nil {
			t.Fatal(err)
		}
	}
	harness.Eventually(t, "the message to be back", func() bool { return vhost.Count(t, queue) == 1 })
}

// peekAt is what `fallback peek` sees on a queue, by id.
func peekAt(t *testing.T, fallback program, env harness.Settings, queue string) map[string]unreadableLine {
	t.Helper()
	o := fallback.run(t, env, "peek", queue, "--json")
	o.check(t, 0, nil, nil)
	var rows []unreadableLine
	if err := json.Unmarshal([]byte(o.stdout), &rows); err != nil {
		t.Fatalf("peek %s: %v", queue, err)
	}
	seen := map[string]unreadableLine{}
	for _, row := range rows {
		seen[row.ID] = row
	}
	return seen
}

type unreadableLine struct {
	peekLine
	Error string `json:"error"`
}
