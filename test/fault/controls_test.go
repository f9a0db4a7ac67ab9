//go:build e2e

package fault

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/drain"
	"fallback/functions/envelope"
	"fallback/functions/httpapi"
	"fallback/functions/topology"
	"fallback/test/harness"
)

// TestControls holds that the ledger sees what it is for: the same door over stores that are wrong on purpose, and the
// same drain over queues that are, under the same faults. A ledger that cannot see a loss proves nothing.
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
		strike: func(context.Context, *rig) error { return nil },
		heal:   func(context.Context, *rig) error { return nil },
		shows:  func(figures) bool { return true },
	}
	calmDrain := calm
	calmDrain.workers = 1
	// Without a pause: what is accepted while the queue is not there is what this is about.
	deleted := find("queue deleted and put back")
	beside := lanes(4)
	parked := topology.DefaultQueue + ".parked"
	rare := find("primary limits one sender")
	rare.keys = 1000 // else it is another request of that sender that is tried too soon
	echo := find("a loop")
	// which is a delivery, but not for this primary
	echo.strike = func(_ context.Context, r *rig) error { return leadBack(r, "") }
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
		{"published twice", &wrongStore{confirms: true, mandatory: true, twice: true}, calm,
			func(r result) int { return r.Duplicated }},
		{"ack before the effect", &wrongSource{early: true}, find("primary down and up"), lost},
		{"taken off, and not parked", &wrongSource{unkept: true}, find("primary refuses"), lost},
		{"one byte altered on the way out", &wrongSource{alter: flipOneByteOf}, calmDrain, corrupt},
		{"sooner than asked", &wrongSource{hides: drain.HeaderNotBefore}, rare,
			says("sooner than the primary had asked")},
		{"one holds all back", &wrongSource{stalls: true}, find("primary limits one sender"),
			says("replays while the fault lasted")},
		{"parked for an outage", &wrongSource{to: parked}, find("the way to the primary is closed"),
			says("none was to blame")},
		{"a door's answer is the primary's", rightDrain{}, echo, lost},
		{"counted for a door's answer", rightDrain{}, echo, says("as delivered, and the primary has taken")},
		{"a connection for each that cannot be read", &wrongSource{drops: 3}, find("messages that cannot be read"),
			says("connections for messages that cannot be read")},
		{"poison not told apart", wrongWorker("forgetful"), find("a request that ends workers"), says("is not parked")},
		{"parked beside poison", wrongWorker("hasty"), find("a request that ends workers"),
			says("neighbours are parked")},
		{"sent again for want of room", &wrongSource{hides: drain.HeaderReason}, find("parked queue full"),
			says("and had been refused")},
	} {
		t.Run(row.name, func(t *testing.T) {
			beside.enter(t)
			const tries = 5
			for try := range uint64(tries) {
				r := control(t, row.wrong, row.fault, seed+try)
				t.Logf("seed %d: %d acknowledged, %d lost, %d corrupt, %d duplicated", seed+try, r.Acknowledged, r.Lost,
					r.Corrupt, r.Duplicated)
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

// says counts the failures that say so.
func says(what string) func(result) int {
	return func(r result) (n int) {
		for _, failure := range r.Failures {
			n += strings.Count(failure, what)
		}
		return n
	}
}

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
	r.drainWrongly(t, s)
}

// rightDrain is the shipped worker, for a fault that is wrong.
type rightDrain struct{}

func (rightDrain) install(t *testing.T, r *rig, p plan) {
	r.serve(t, p)
	p.workers = 1
	r.startDrain(t, p)
	r.outlet.quiet = 5 * time.Second
}

// wrongWorker is one of wrongDrains, in a process of its own.
type wrongWorker string

func (w wrongWorker) install(t *testing.T, r *rig, p plan) {
	r.serve(t, p)
	r.newOutlet(t, p)
	r.outlet.quiet = 5 * time.Second
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	worker := &process{program: program, command: "drain", log: &harness.Log{}, env: map[string]string{
		wrongDrain: string(w), "AMQP_SERVER_URL": r.drainURL(), "FALLBACK_TARGET_URL": r.outlet.primary.URL,
	}}
	t.Cleanup(worker.kill)
	if err := worker.start(); err != nil {
		t.Fatal(err)
	}
	r.outlet.workers = append(r.outlet.workers, worker)
}

// control does one round with the wrong part and says what the ledger saw.
func control(t *testing.T, wrong wrong, f fault, seed uint64) result {
	t.Helper()
	f.early = false // such a part may not let the fault show
	var r result
	t.Run(fmt.Sprintf("seed_%d", seed), func(t *testing.T) {
		p := pace{timeout: 2 * time.Second, warm: 300 * time.Millisecond, after: 300 * time.Millisecond, strikes: 2}
		plan := plan{seed: seed, name: f.name, timeout: p.timeout, strikes: p.strikes, keys: f.keys}
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
		Limits: httpapi.Limits{Body: 1 << 20, Header: 64 << 10}, Timeout: timeout, InFlight: 1024,
		BytesInHand: 64 << 20,
		Log:         slog.New(slog.DiscardHandler),
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
