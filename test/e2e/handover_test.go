//go:build e2e

package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"fallback/functions/drain"
	"fallback/functions/topology"
	"fallback/test/harness"
)

// TestHandOver holds that a message which the broker cannot hand over keeps nothing behind it, that who looks is told,
// and that it can be moved to the parked queue.
func TestHandOver(t *testing.T) {
	t.Parallel()
	if !harness.SpeaksAMQP10() {
		t.Skip("RabbitMQ 3 speaks AMQP 1.0 with a plugin only")
	}
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, nil)
	d, log := vhost.Drain(t, primary, nil)
	unspeakable := func(id string) {
		t.Helper()
		if err := vhost.PublishUnspeakable(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	enqueue(t, server, 10, "/before")
	unspeakable("bad-1")
	enqueue(t, server, 30, "/behind")
	unspeakable("bad-2")
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
		if err := vhost.RejectFirst(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	harness.Eventually(t, "the two to be parked", func() bool { return vhost.Count(t, parkedQueue) == 2 })
	enqueue(t, server, 3, "/after")
	harness.Eventually(t, "the drain to be ready", func() bool {
		_ = once(t, d)
		return d.Ready() == nil && len(primary.Got()) >= 53
	})
	checkOnce(t, primary, 3, "/after")
}
