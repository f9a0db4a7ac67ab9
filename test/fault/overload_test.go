//go:build e2e

package fault

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"fallback/test/harness"
)

// TestOverload sends from far more connections at once than the server takes in hand (1,024), and once than it takes
// at all (2,048), before a broker that is slow and one that says nothing. What is not in hand is refused and does not
// wait for what is, nothing is late, memory stays bounded, and it passes. The long run holds how quickly it is
// refused, too.
func TestOverload(t *testing.T) {
	const (
		timeout     = 5 * time.Second
		memoryLimit = 192 << 20 // the server's in docker-compose.yml
		growthLimit = 16 << 20  // of what is resident in the end, over the peak of the time in which it settles
		// a connection that says nothing is given up, and what it held is still held beside what came since
		settled    = 9 * time.Second
		afterwards = 4 * time.Second
		p99Limit   = timeout / 5 // of a refusal, in the long run
	)
	// of a sender after a refusal. On a slow machine a shorter one would keep the senders from running
	pause := 3 * time.Second
	if wanted > 0 {
		pause = time.Second
	}
	for _, row := range []struct {
		name    string
		mode    mode
		clients int
		size    int // of the bodies; 0 for small ones
	}{
		{"slow broker", slow, 5000, 0},
		{"silent broker", blackHole, 4000, 0},
		{"silent broker and large bodies", blackHole, 2000, 256 << 10}, // 500 MB of bodies
	} {
		t.Run(row.name, func(t *testing.T) {
			p := plan{
				seed: seed, name: t.Name(), timeout: timeout,
				env: map[string]string{"GOMEMLIMIT": "144MiB"}, // as docker-compose.yml has it
			}
			r := newRig(t, broker, p)
			r.serve(t, p)
			before, err := r.warmUp()
			if err != nil {
				t.Fatal(err)
			}
			r.proxy.set(row.mode)
			r.load.size = row.size
			c := gather(r, row.clients, pause)
			select {
			case <-c.begun:
			case <-time.After(harness.Patience):
				t.Error("nothing was refused: there was no overload")
			}
			time.Sleep(settled)
			_, early, err := harness.Memory(r.servers[0].pid())
			if err != nil {
				t.Error(err)
			}
			var peak, resident int64
			for range 3 { // on a slow machine it may settle later; what leaks goes on
				time.Sleep(afterwards)
				if resident, peak, err = harness.Memory(r.servers[0].pid()); err != nil {
					t.Error(err)
				}
				if resident-early <= growthLimit {
					break
				}
				t.Logf("%d MiB resident, %d before", resident>>20, early>>20)
				early = peak
			}
			c.disperse()
			r.proxy.set(passing)
			r.load.size = 0

			ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
			defer cancel()
			over := harness.StartWatch()
			if err := r.servers[0].waitReady(ctx); err != nil {
				t.Error(err)
			}
			if recovery := over.Elapsed(); recovery.Over(allowed(recoveryLimit)) {
				t.Errorf("ready again after %s, want %s", recovery, allowed(recoveryLimit))
			}
			r.load.start(16)
			time.Sleep(500 * time.Millisecond)
			r.load.end()
			if err := r.readEmpty(ctx); err != nil {
				t.Fatal(err)
			}
			if err := r.leaks(ctx, before); err != nil {
				t.Error(err)
			}
			a := r.ledger.audit()
			for _, fault := range a.faults(fault{}) {
				t.Error(fault)
			}
			if peak > memoryLimit {
				t.Errorf("the server took %d MiB, want at most %d", peak>>20, memoryLimit>>20)
			}
			// the peak itself grows with time, by chance: it depends on when garbage is collected
			if growth := resident - early; growth > growthLimit {
				t.Errorf("the server has %d MiB more than it had %s before, and grew before that, too; want at most %d",
					growth>>20, afterwards, growthLimit>>20)
			}
			for answer, times := range c.took {
				slices.Sort(times)
				p99 := harness.Percentile(times, 99)
				t.Logf("%s: %d, p50 %s, p99 %s, at most %s", answer, len(times), harness.Percentile(times, 50), p99,
					times[len(times)-1])
				if wanted > 0 && !waitsForBroker(answer) && p99 > p99Limit { // a short run is no measure
					t.Errorf("%s within %s (p99), want %s", answer, p99, p99Limit)
				}
			}
			t.Logf("%d acknowledged, slowest answer %s; memory %d MiB, peak %d, %d when settled", a.Acknowledged,
				a.Slowest, resident>>20, peak>>20, early>>20)
			// A silent broker keeps all that are in hand until their deadline: who waits for one of their places is
			// told after them.
			if row.mode == blackHole && c.told < row.clients/20 {
				t.Errorf("%d were refused before the first of those in hand had its answer, want %d at the least",
					c.told, row.clients/20)
			}
			if refusals := c.took[overloaded]; len(refusals) > 0 {
				if err := results.addOverload(overloadTest{
					Name: row.name, Clients: row.clients, Size: row.size, Refused: len(refusals),
					Deadline: harness.Millis(timeout),
					P50:      harness.Millis(harness.Percentile(refusals, 50)),
					P99:      harness.Millis(harness.Percentile(refusals, 99)), PeakMiB: peak >> 20,
				}); err != nil {
					t.Error(err)
				}
			}
			if t.Failed() {
				t.Error(again(t))
			}
		})
	}
}

// overloaded is the answer to who is over the bound, and notConfirmed to who is in hand when the broker says nothing.
const overloaded, notConfirmed = "503 overloaded", "503 not-confirmed"

// waitsForBroker says whether an answer is to a request in hand: it may take the deadline, and late says that it took
// no longer.
func waitsForBroker(answer string) bool {
	return answer == notConfirmed || answer == "503 broker-unavailable"
}

// crowd is senders, each on a connection of its own, that send the next request when the last was answered, or a pause
// after a refusal.
type crowd struct {
	begun    chan struct{} // closed at the first refusal
	stopping chan struct{}
	work     sync.WaitGroup

	mu   sync.Mutex                 // guards what follows until disperse has returned
	took map[string][]time.Duration // how long each answer took that was no 202
	told int                        // refused before the first that was in hand had its answer
}

// gather starts them. They come within the first second: all in the same instant, on the machine that they share with
// the server, would measure the machine.
func gather(r *rig, clients int, pause time.Duration) *crowd {
	c := &crowd{begun: make(chan struct{}), stopping: make(chan struct{}), took: map[string][]time.Duration{}}
	r.load.stop = c.stopping
	for i := range clients {
		c.work.Go(func() {
			time.Sleep(time.Second * time.Duration(i) / time.Duration(clients))
			s := sender{load: r.load}
			defer s.hangUp()
			for !r.load.ended() {
				status, e, answer := s.ask()
				if status == http.StatusAccepted {
					continue
				}
				if status != notSent { // the ledger counts those
					c.enter(answer, e.Took)
				}
				select {
				case <-time.After(pause):
				case <-c.stopping:
				}
			}
		})
	}
	return c
}

func (c *crowd) enter(answer string, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer == overloaded {
		if len(c.took[overloaded]) == 0 {
			close(c.begun)
		}
		if len(c.took[notConfirmed]) == 0 {
			c.told++
		}
	}
	c.took[answer] = append(c.took[answer], took)
}

// disperse lets each finish its request.
func (c *crowd) disperse() {
	close(c.stopping)
	c.work.Wait()
}
