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

// TestOverload sends from far more connections at once than the server takes in hand, before a broker that is slow and
// one that says nothing. What is refused is refused quickly, nothing is late, memory stays bounded, and it passes.
func TestOverload(t *testing.T) {
	const (
		clients     = 2000 // the server takes 1,024 in hand
		memoryLimit = 192 << 20
		refusalTime = time.Second
	)
	for _, row := range []struct {
		name string
		mode mode
	}{
		{"slow broker", slow},
		{"silent broker", blackHole},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := plan{seed: seed, name: t.Name(), timeout: 5 * time.Second}
			r := newRig(t, broker, p)
			r.serve(t, p)
			before, err := r.warmUp()
			if err != nil {
				t.Fatal(err)
			}
			r.proxy.set(row.mode)
			took := crowd(r, clients, 8*time.Second)
			r.proxy.set(passing)

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
			peak, err := peakMemory(r.servers[0].pid())
			if err != nil {
				t.Fatal(err)
			}
			if peak > memoryLimit {
				t.Errorf("the server took %d MiB, want at most %d", peak>>20, memoryLimit>>20)
			}
			if len(took) == 0 {
				t.Fatal("nothing was refused: there was no overload")
			}
			slices.Sort(took)
			p99 := took[len(took)*99/100]
			if p99 > refusalTime {
				t.Errorf("refused within %s (p99), want %s", p99, refusalTime)
			}
			t.Logf("%d acknowledged, slowest answer %s, other answers %v; refusals took p50 %s, p99 %s, at most %s; peak memory %d MiB",
				a.Acknowledged, a.Slowest, a.Answers, took[len(took)/2], p99, took[len(took)-1], peak>>20)
			if t.Failed() {
				t.Error(again(t))
			}
		})
	}
}

// crowd sends from that many connections for the time, each its next request when the last was answered, and a second
// after a refusal. They come within the first second: all in the same instant, on the machine that they share with the
// server, would measure the machine. It says how long the refusals for overload took.
func crowd(r *rig, clients int, d time.Duration) []time.Duration {
	var mu sync.Mutex // guards took
	var took []time.Duration
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
				if status == http.StatusServiceUnavailable && answer == "503 overloaded" {
					mu.Lock()
					took = append(took, answered)
					mu.Unlock()
				}
				if status != http.StatusAccepted {
					time.Sleep(time.Second)
				}
			}
		})
	}
	work.Wait()
	return took
}
