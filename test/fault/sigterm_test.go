//go:build e2e

package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fallback/test/harness"
)

// TestSIGTERM ends a server that has 500 requests in hand, each of which waits for a slow broker's confirm: every one
// is answered, no new connection is taken, AMQP says good-bye last, and the exit code is 0.
func TestSIGTERM(t *testing.T) {
	const inHand = 500
	// they are in hand for as long as the broker says nothing
	p := plan{seed: seed, name: t.Name(), timeout: time.Minute}
	r := newRig(t, broker, p)
	r.serve(t, p)
	if _, err := r.warmUp(); err != nil {
		t.Fatal(err)
	}
	s := r.servers[0]
	warm := r.ledger.tally().accepted
	r.proxy.set(blackHole)
	begin := time.Now()

	var clients sync.WaitGroup
	for range inHand {
		clients.Go(func() {
			c := sender{load: r.load}
			defer c.hangUp()
			c.ask()
		})
	}
	s.waitInHand(t, inHand)

	exited := make(chan error, 1)
	signalled := time.Now()
	go func() { exited <- s.terminate() }()
	harness.Eventually(t, "new connections to be refused", func() bool {
		conn, err := net.DialTimeout("tcp", s.addr, time.Second)
		if err == nil {
			conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	refused := time.Since(signalled)
	r.proxy.set(passing) // the confirms come now
	clients.Wait()
	answered := time.Since(signalled)
	if err := <-exited; err != nil {
		t.Error(err)
	}
	t.Logf("after SIGTERM: connections refused within %s, all answered within %s, ended within %s", refused, answered,
		time.Since(signalled))

	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	if err := r.readEmpty(ctx); err != nil {
		t.Fatal(err)
	}
	a := r.ledger.audit()
	for _, fault := range a.faults(fault{}) {
		t.Error(fault)
	}
	if got := a.Acknowledged - warm; got != inHand {
		t.Errorf("%d of the %d in hand were accepted; other answers %v", got, inHand, a.Answers)
	}
	t.Logf("%d acknowledged, other answers %v", a.Acknowledged, a.Answers)
	checkGoodBye(t, r, begin)
}

// waitInHand waits until the server says that it has so many requests in hand.
func (s *process) waitInHand(t *testing.T, want int) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%d requests to be in hand", want), func() bool {
		response, err := http.Get("http://" + s.addr + "/metrics")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return err == nil && strings.Contains(string(body), fmt.Sprintf("\nfallback_requests_in_hand %d\n", want))
	})
}

// checkGoodBye looks in the broker's log for how the connection ended.
func checkGoodBye(t *testing.T, r *rig, since time.Time) {
	t.Helper()
	var ends []string
	harness.Eventually(t, "the broker to log the end of the connection", func() bool {
		out, err := harness.Run(harness.Patience, "docker", "logs", "--since", since.UTC().Format(time.RFC3339Nano),
			broker.ID())
		if err != nil {
			t.Fatal(err)
		}
		ends = nil
		for line := range strings.Lines(out) {
			if strings.Contains(line, "'"+r.vhost.Name+"'") && strings.Contains(line, "clos") &&
				strings.Contains(line, "fallback publisher") {
				ends = append(ends, strings.TrimSpace(line))
			}
		}
		return len(ends) > 0
	})
	for _, line := range ends {
		if strings.Contains(line, "unexpectedly") {
			t.Errorf("the server did not say good-bye to the broker: %s", line)
		}
	}
	t.Log(ends)
}

// TestSIGTERMWithSilentBroker ends a server whose requests cannot be confirmed: they get their 503 at their deadline,
// and the server still ends within 10 seconds, with code 0.
func TestSIGTERMWithSilentBroker(t *testing.T) {
	p := plan{seed: seed, name: t.Name(), timeout: 6 * time.Second} // before the server cuts off, 7 s after SIGTERM
	r := newRig(t, broker, p)
	r.serve(t, p)
	if _, err := r.warmUp(); err != nil {
		t.Fatal(err)
	}
	r.proxy.set(blackHole)
	var clients sync.WaitGroup
	const inHand = 50
	for range inHand {
		clients.Go(func() {
			c := sender{load: r.load}
			defer c.hangUp()
			c.ask()
		})
	}
	r.servers[0].waitInHand(t, inHand)
	begin := time.Now()
	if err := r.servers[0].terminate(); err != nil {
		t.Error(err)
	}
	t.Logf("ended %s after SIGTERM", time.Since(begin))
	clients.Wait()
	r.proxy.set(passing)
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	if err := r.readEmpty(ctx); err != nil {
		t.Fatal(err)
	}
	for _, fault := range r.ledger.audit().faults(fault{}) {
		t.Error(fault)
	}
}
