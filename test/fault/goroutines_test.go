//go:build e2e

package fault

import (
	"net/http"
	"runtime"
	"slices"
	"testing"
	"time"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// TestGoroutines does rounds of network faults with the server in this process, where its goroutines can be counted:
// afterwards there are as many as before.
func TestGoroutines(t *testing.T) {
	names := []string{"network black hole", "network reset", "half-open connection", "confirms lost", "connections closed by the operator"}
	p := plan{seed: seed, name: t.Name(), timeout: 2 * time.Second}
	r := newRig(t, broker, p)
	server := r.vhost.Serve(t, harness.Settings{
		"AMQP_SERVER_URL": r.url(""), "FALLBACK_TIMEOUT": p.timeout.String(), "LOG_LEVEL": "info",
		"RABBITMQ_MANAGEMENT_URL": r.vhost.ManagementURL(topology.Monitor),
	})
	server.WaitReady(t)
	r.load.doors = []door{{server.Addr, "/fallback"}}
	if _, err := r.warmUp(); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		return runtime.NumGoroutine()
	}
	time.Sleep(time.Second)
	before := count()
	for _, f := range faults {
		if slices.Contains(names, f.name) {
			result := r.rounds(t, f, pace{timeout: p.timeout, warm: 300 * time.Millisecond, after: 300 * time.Millisecond}, time.Now())
			for _, failure := range result.Failures {
				t.Errorf("%s: %s", f.name, failure)
			}
		}
	}
	harness.Eventually(t, 15*time.Second, "the goroutines to end", func() bool {
		if now := count(); now > before {
			t.Logf("%d goroutines, were %d", now, before)
			return false
		}
		return true
	})
	if t.Failed() {
		t.Error(again(t))
	}
}
