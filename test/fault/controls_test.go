//go:build e2e

package fault

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/envelope"
	"fallback/functions/httpapi"
	"fallback/functions/topology"
)

// TestControls holds that the ledger sees what it is for: the same door over stores that are wrong on purpose, under the
// same faults. A ledger that cannot see a loss proves nothing.
func TestControls(t *testing.T) {
	find := func(name string) fault {
		for _, f := range faults {
			if f.name == name {
				return f
			}
		}
		t.Fatalf("no fault is called %q", name)
		return fault{}
	}
	calm := fault{
		name: "no fault", hold: span[time.Duration]{100 * time.Millisecond, 200 * time.Millisecond},
		strike: func(context.Context, *rig) error { return nil }, heal: func(context.Context, *rig) error { return nil },
		shows: func(figures) bool { return true },
	}
	// Without a pause: what is accepted while the queue is not there is what this is about.
	deleted := find("queue deleted and put back")
	for _, row := range []struct {
		name  string
		store *wrongStore
		fault fault
		sees  func(result) int
	}{
		{"confirms off", &wrongStore{mandatory: true}, find("network reset"), lost},
		{"mandatory off", &wrongStore{confirms: true}, deleted, lost},
		{"202 before the confirm", &wrongStore{early: true, mandatory: true}, find("network reset"), lost},
		{"one byte altered", &wrongStore{confirms: true, mandatory: true, alter: flipOneByte}, calm, func(r result) int { return r.Corrupt }},
		{"published twice", &wrongStore{confirms: true, mandatory: true, twice: true}, calm, func(r result) int { return r.Duplicated }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			const tries = 5
			for try := range uint64(tries) {
				r := control(t, row.store, row.fault, seed+try)
				t.Logf("seed %d: %d acknowledged, %d lost, %d corrupt, %d duplicated", seed+try, r.Acknowledged, r.Lost, r.Corrupt, r.Duplicated)
				if row.sees(r) > 0 {
					return
				}
			}
			t.Errorf("the ledger saw nothing wrong in %d rounds; %s", tries, again(t))
		})
	}
}

func lost(r result) int { return r.Lost }

func flipOneByte(m *amqp.Publishing) {
	if len(m.Body) > 0 {
		m.Body[len(m.Body)/2] ^= 1
	}
}

// control does one round with the store and says what the ledger saw.
func control(t *testing.T, store *wrongStore, f fault, seed uint64) result {
	t.Helper()
	var r result
	p := pace{timeout: 2 * time.Second, warm: 300 * time.Millisecond, after: 300 * time.Millisecond}
	t.Run(fmt.Sprintf("seed_%d", seed), func(t *testing.T) {
		rig := newRig(t, broker, plan{seed: seed, name: f.name, timeout: p.timeout})
		store.url, store.conn, store.ch = rig.url(""), nil, nil
		rig.load.doors = []door{{serveDoor(t, store, p.timeout), "/fallback"}}
		t.Cleanup(store.close)
		rig.rounds(t, f, p, time.Now(), &r)
	})
	return r
}

// serveDoor is the door over another store than the publisher.
func serveDoor(t *testing.T, store httpapi.Store, timeout time.Duration) (addr string) {
	t.Helper()
	d, err := httpapi.New(httpapi.Options{
		Prefix: "/fallback", Methods: []string{"POST", "PUT", "PATCH", "DELETE"}, Queue: topology.DefaultQueue,
		Limits: envelope.Limits{Body: 1 << 20, Header: 64 << 10}, Timeout: timeout, InFlight: 1024, BytesInHand: 64 << 20,
		Log: slog.New(slog.DiscardHandler),
	}, store)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- httpapi.NewServer(d).Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}
