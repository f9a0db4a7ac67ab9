//go:build e2e

package e2e

import (
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	amqp10 "github.com/Azure/go-amqp"

	"fallback/functions/drain"
	"fallback/functions/topology"
	"fallback/test/harness"
)

// unspeakable puts a message on the main queue by AMQP 1.0 that RabbitMQ cannot put into words of AMQP 0-9-1: it
// closes each connection by which it tries to hand it over.
func unspeakable(t *testing.T, vhost *harness.VHost, id string) {
	t.Helper()
	sender, err := amqp10Session(t, vhost).NewSender(t.Context(), "/queues/"+topology.DefaultQueue, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = sender.Send(t.Context(), &amqp10.Message{
		Header: &amqp10.MessageHeader{Durable: true}, Properties: &amqp10.MessageProperties{MessageID: id},
		ApplicationProperties: map[string]any{"trace": amqp10.UUID{1, 2, 3}}, Data: [][]byte{[]byte("body of " + id)},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
}

// amqp10Session is one of the drain's user.
func amqp10Session(t *testing.T, vhost *harness.VHost) *amqp10.Session {
	t.Helper()
	u, err := url.Parse(vhost.URL(topology.Drainer))
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	conn, err := amqp10.Dial(t.Context(), "amqp://"+u.Host, &amqp10.ConnOptions{
		HostName: "vhost:" + vhost.Name, SASLType: amqp10.SASLTypePlain(u.User.Username(), password),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	session, err := conn.NewSession(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return session
}

// TestHandOver holds that a message which the broker cannot hand over keeps nothing behind it, that who looks is told,
// and that it can be moved to the parked queue.
func TestHandOver(t *testing.T) {
	t.Parallel()
	if version := os.Getenv("FALLBACK_TEST_RABBITMQ"); strings.HasPrefix(version, "3.") {
		t.Skip("RabbitMQ 3 speaks AMQP 1.0 with a plugin only")
	}
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, nil)
	d, log := vhost.Drain(t, primary, nil)
	enqueue(t, server, 10, "/before")
	unspeakable(t, vhost, "bad-1")
	enqueue(t, server, 30, "/behind")
	unspeakable(t, vhost, "bad-2")
	enqueue(t, server, 10, "/last")
	run := harness.StartWatch()
	harness.Eventually(t, "all others to be delivered", func() bool {
		_ = onceFor(t, d, 30*time.Second)
		return len(primary.Got()) >= 50
	})
	run.Hold(t, time.Minute, "to pass two messages that cannot be handed over")
	checkOnce(t, primary, 30, "/behind")
	checkOnce(t, primary, 10, "/last")
	if err := d.Ready(); !errors.Is(err, drain.ErrHandOver) {
		t.Errorf("ready says %v", err)
	}
	if !strings.Contains(log.String(), "cannot hand over") {
		t.Error("the log does not say so")
	}
	if n := vhost.Count(t, topology.DefaultQueue); n != 2 {
		t.Errorf("%d wait, want the two", n)
	}
	fallback := build(t)
	env := harness.Settings{"AMQP_SERVER_URL": vhost.URL(topology.Drainer)}
	for _, args := range [][]string{{"peek"}, {"doctor", "--look"}} {
		if o := fallback.run(t, env, args...); o.code != 1 ||
			!strings.Contains(o.stdout+o.stderr, "the broker cannot hand over") ||
			!strings.Contains(o.stdout+o.stderr, "docs/drain.md") {
			t.Errorf("%s says, with code %d: %s%s", args, o.code, o.stdout, o.stderr)
		}
	}
	for range 2 {
		reject(t, vhost)
	}
	harness.Eventually(t, "the two to be parked", func() bool { return vhost.Count(t, parkedQueue) == 2 })
	enqueue(t, server, 3, "/after")
	harness.Eventually(t, "the drain to be ready", func() bool {
		_ = once(t, d)
		return d.Ready() == nil && len(primary.Got()) >= 53
	})
	checkOnce(t, primary, 3, "/after")
}

// reject moves the first message of the main queue to the parked one, as docs/drain.md says.
func reject(t *testing.T, vhost *harness.VHost) {
	t.Helper()
	receiver, err := amqp10Session(t, vhost).NewReceiver(t.Context(), "/queues/"+topology.DefaultQueue, nil)
	if err != nil {
		t.Fatal(err)
	}
	message, err := receiver.Receive(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := receiver.RejectMessage(t.Context(), message, nil); err != nil {
		t.Fatal(err)
	}
	_ = receiver.Close(t.Context())
}
