//go:build e2e

package fault

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestOverload sends from far more connections at once than the server takes in hand (1,024, and 64 MiB of bodies), and than
// it takes at all (4,096), before a broker that is slow and one that says nothing. What is not in hand is refused quickly, nothing is late, memory stays bounded, and it passes.
func TestOverload(t *testing.T) {
	const (
		memoryLimit = 192 << 20       // the server's in docker-compose.yml
		growthLimit = 16 << 20        // of what is resident in the end, over the peak of the time in which it settles
		settled     = 9 * time.Second // a connection that says nothing is given up, and what it held is still held beside what came since
		refusalTime = time.Second
	)
	for _, row := range []struct {
		name    string
		mode    mode
		clients int
		size    int // of the bodies; 0 for small ones
	}{
		{"slow broker", slow, 5000, 0},
		{"silent broker", blackHole, 5000, 0},
		{"silent broker and large bodies", blackHole, 2000, 256 << 10}, // 500 MB of bodies
	} {
		t.Run(row.name, func(t *testing.T) {
			p := plan{
				seed: seed, name: t.Name(), timeout: 5 * time.Second,
				env: map[string]string{"GOMEMLIMIT": "160MiB"}, // as docker-compose.yml has it
			}
			r := newRig(t, broker, p)
			r.serve(t, p)
			before, err := r.warmUp()
			if err != nil {
				t.Fatal(err)
			}
			r.proxy.set(row.mode)
			r.load.size = row.size
			first := make(chan int64, 1)
			time.AfterFunc(settled, func() {
				peak, _ := peakMemory(r.servers[0].pid())
				first <- peak
			})
			took := crowd(r, row.clients, settled+4*time.Second)
			peak, err := peakMemory(r.servers[0].pid())
			if err != nil {
				t.Fatal(err)
			}
			resident, err := residentMemory(r.servers[0].pid())
			if err != nil {
				t.Fatal(err)
			}
			r.proxy.set(passing)
			r.load.size = 0

			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			began := time.Now()
			if err := r.servers[0].waitReady(ctx); err != nil {
				t.Error(err)
			}
			if recovery := time.Since(began); recovery > recoveryLimit {
				t.Errorf("ready again after %s, want %s", recovery, recoveryLimit)
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
			early := <-first
			if growth := resident - early; growth > growthLimit { // the peak itself grows with time, by chance: it depends on when garbage is collected
				t.Errorf("the server has %d MiB more than it had in the first %s, want at most %d", growth>>20, settled, growthLimit>>20)
			}
			if len(took["503 overloaded"]) == 0 {
				t.Fatal("nothing was refused: there was no overload")
			}
			for answer, times := range took {
				slices.Sort(times)
				p99 := times[len(times)*99/100]
				t.Logf("%s: %d, p50 %s, p99 %s, at most %s", answer, len(times), times[len(times)/2], p99, times[len(times)-1])
				if !waitsForBroker(answer) && p99 > refusalTime {
					t.Errorf("%s within %s (p99), want %s", answer, p99, refusalTime)
				}
			}
			t.Logf("%d acknowledged, slowest answer %s; memory %d MiB, peak %d, %d in the first %s", a.Acknowledged, a.Slowest, resident>>20, peak>>20, early>>20, settled)
			if t.Failed() {
				t.Error(again(t))
			}
		})
	}
}

// waitsForBroker says whether an answer is to a request in hand: it may take the deadline, and late says that it took no longer.
func waitsForBroker(answer string) bool {
	return answer == "503 not-confirmed" || answer == "503 broker-unavailable"
}

// crowd sends from that many connections for the time, each its next request when the last was answered, and a second
// after a refusal. They come within the first second: all in the same instant, on the machine that they share with the
// server, would measure the machine. It says how long each answer took that was no 202.
func crowd(r *rig, clients int, d time.Duration) map[string][]time.Duration {
	var mu sync.Mutex // guards took
	took := map[string][]time.Duration{}
	r.load.stop = make(chan struct{})
	var work sync.WaitGroup
	end := time.Now().Add(d)
	for i := range clients {
		work.Go(func() {
			time.Sleep(time.Second * time.Duration(i) / time.Duration(clients))
			s := sender{load: r.load}
			defer s.hangUp()
			for time.Now().Before(end) {
				status, answered, answer := s.ask()
				if status == http.StatusAccepted {
					continue
				}
				if status != notSent { // the ledger counts those
					mu.Lock()
					took[answer] = append(took[answer], answered)
					mu.Unlock()
				}
				time.Sleep(time.Second)
			}
		})
	}
	work.Wait()
	return took
}
