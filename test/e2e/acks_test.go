//go:build e2e

package e2e

import (
	"context"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/rabbit"
	"fallback/functions/topology"
	"fallback/test/harness"
)

// TestAcksAreApplied holds that what was acked before a source is closed is off the queue, and the rest on it: many
// acks at once, and the end, are what a worker has that is stopped, and a command that discards.
func TestAcksAreApplied(t *testing.T) {
	t.Parallel()
	const all = 600
	for _, row := range []struct {
		name    string
		taken   int
		stopped bool // before the acks
	}{
		{"while it takes", all, false},
		{"when it has stopped", all, true},
		{"and others are left", 400, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			vhost := broker.VHost(t)
			ch := vhost.Channel(t, topology.Publisher)
			if err := ch.Confirm(false); err != nil {
				t.Fatal(err)
			}
			for range all {
				confirm, err := ch.PublishWithDeferredConfirm("", topology.DefaultQueue, true, false,
					amqp.Publishing{Body: []byte("x")})
				if err != nil || !confirm.Wait() {
					t.Fatalf("it is not stored: %v", err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
			defer cancel()
			source := rabbit.NewSource(rabbit.SourceOptions{URL: vhost.URL(topology.Drainer),
				Queue: topology.DefaultQueue})
			if err := source.Take(ctx, all); err != nil {
				t.Fatal(err)
			}
			var taken []*rabbit.Delivery
			for range row.taken {
				d, err := source.Next(ctx)
				if err != nil {
					t.Fatal(err)
				}
				taken = append(taken, d)
			}
			if row.stopped {
				if err := source.Stop(ctx); err != nil {
					t.Fatal(err)
				}
			}
			for _, d := range taken {
				if err := d.Done(); err != nil {
					t.Fatal(err)
				}
			}
			source.Close()
			left := 0
			defer func() {
				if t.Failed() {
					t.Logf("%d are left, of which %d were not acked", left, all-row.taken)
				}
			}()
			harness.Eventually(t, "what was not acked to be left, and no more", func() bool {
				left = vhost.Count(t, topology.DefaultQueue)
				return left == all-row.taken
			})
			time.Sleep(time.Second) // what comes back does within that
			if left = vhost.Count(t, topology.DefaultQueue); left != all-row.taken {
				t.Error("some came back")
			}
		})
	}
}
