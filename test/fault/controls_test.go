//go:build e2e

package fault

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/envelope"
	"fallback/functions/httpapi"
	"fallback/functions/topology"
)

// TestControls holds that the ledger sees what it is for: the same door over stores that are wrong on purpose, and the same
// drain over queues that are, under the same faults. A ledger that cannot see a loss proves nothing.
func TestControls(t *testing.T) {
	find := func(name string) fault {
		for _, f := range slices.Concat(faults, replayed) {
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
	calmDrain := calm
	calmDrain.workers = 1
	// Without a pause: what is accepted while the queue is not there is what this is about.
	deleted := find("queue deleted and put back")
	beside := lanes(4)
	for _, row := range []struct {
		name  string
		wrong wrong
		fault fault
		sees  func(result) int
	}{
		{"confirms off", &wrongStore{mandatory: true}, find("network reset"), lost},
		{"mandatory off", &wrongStore{confirms: true}, deleted, lost},
		{"202 before the confirm", &wrongStore{early: true, mandatory: true}, find("network reset"), lost},
		{"one byte altered", &wrongStore{confirms: true, mandatory: true, alter: flipOneByte}, calm, corrupt},
		{"published twice", &wrongStore{confirms: true, mandatory: true, twice: true}, calm, func(r result) int { return r.Duplicated }},
		{"ack before the effect", &wrongSource{early: true}, find("primary down and up"), lost},
		{"taken off, and not parked", &wrongSource{unkept: true}, find("primary refuses"), lost},
		{"one byte altered on the way out", &wrongSource{alter: flipOneByteOf}, calmDrain, corrupt},
	} {
		t.Run(row.name, func(t *testing.T) {
			beside.enter(t)
			const tries = 5
			for try := range uint64(tries) {
				r := control(t, row.wrong, row.fault, seed+try)
				t.Logf("seed %d: %d acknowledged, %d lost, %d corrupt, %d duplicated", seed+try, r.Acknowledged, r.Lost, r.Corrupt, r.Duplicated)
				if row.sees(r) > 0 {
					return
				}
			}
			t.Errorf("the ledger saw nothing wrong in %d rounds; %s", tries, again(t))
		})
	}
}

func lost(r result) int    { return r.Lost }
func corrupt(r result) int { return r.Corrupt }

func flipOneByte(m *amqp.Publishing) {
	if len(m.Body) > 0 {
		m.Body[len(m.Body)/2] ^= 1
	}
}

func flipOneByteOf(r *envelope.Request) {
	if len(r.Body) > 0 {
		r.Body[len(r.Body)/2] ^= 1
	}
}

// wrong is a part of a rig that is wrong on purpose.
type wrong interface {
	install(t *testing.T, r *rig, p plan)
}

// install has the door use the store.
func (s *wrongStore) install(t *testing.T, r *rig, p plan) {
	s.url, s.conn, s.ch = r.url(""), nil, nil
	r.load.doors = []door{{serveDoor(t, s, p.timeout), "/fallback"}}
	t.Cleanup(s.close)
}

// install has the drain, and it alone, use the source.
func (s *wrongSource) install(t *testing.T, r *rig, p plan) {
	r.serve(t, p)
	r.newOutlet(t, p)
	r.outlet.quiet = 5 * time.Second
	if err := r.drainWrongly(*s); err != nil {
		t.Fatal(err)
	}
}

// control does one round with the wrong part and says what the ledger saw.
func control(t *testing.T, wrong wrong, f fault, seed uint64) result {
	t.Helper()
	f.early = false // such a part may not let the fault show
	var r result
	t.Run(fmt.Sprintf("seed_%d", seed), func(t *testing.T) {
		p := pace{timeout: 2 * time.Second, warm: 300 * time.Millisecond, after: 300 * time.Millisecond, strikes: 2}
		plan := plan{seed: seed, name: f.name, timeout: p.timeout, strikes: p.strikes}
		rig := newRig(t, broker, plan)
		wrong.install(t, rig, plan)
		rig.rounds(t, f, p, time.Now(), &r)
	})
	return r
}

// serveDoor is the door over another store than the publisher.
func serveDoor(t *testing.T, store httpapi.Store, timeout time.Duration) (addr string) {
	t.Helper()
	d, err := httpapi.New(httpapi.Options{
		Prefix: "/fallback", Methods: []string{"POST", "PUT", "PATCH", "DELETE"}, Queue: topology.DefaultQueue,
		Limits: httpapi.Limits{Body: 1 << 20, Header: 64 << 10}, Timeout: timeout, InFlight: 1024, BytesInHand: 64 << 20,
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
