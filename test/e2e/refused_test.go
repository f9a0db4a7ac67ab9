//go:build e2e

package e2e

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// TestUserMayNotPublish holds what an operator sees who has given the server a user that may not publish: it is not
// ready from the start, each request is told, the log says what to do, and the broker is not dialled for each request.
func TestUserMayNotPublish(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	permit := func(write string) {
		t.Helper()
		path := "/api/permissions/" + url.PathEscape(vhost.Name) + "/" + topology.Publisher
		if err := vhost.Call(http.MethodPut, path, map[string]string{"configure": "^$", "write": write, "read": "^$"},
			nil); err != nil {
			t.Fatal(err)
		}
	}
	permit("^" + topology.DefaultQueue + "$")
	dials, address := countDials(t, vhost.AMQP)
	server := vhost.Serve(t, harness.Settings{
		"AMQP_SERVER_URL": strings.Replace(vhost.URL(topology.Publisher), vhost.AMQP, address, 1),
	})
	harness.Eventually(t, "the log to tell", func() bool {
		return len(linesOf(server.Log, "the broker's user may not publish")) == 1
	})
	checkProblem(t, send(t, "GET", server.URL+"/readyz", ""), http.StatusServiceUnavailable, "not-allowed")
	start := time.Now()
	for range 50 {
		checkProblem(t, send(t, "POST", server.URL+"/fallback", "x"), http.StatusServiceUnavailable, "not-allowed")
		time.Sleep(20 * time.Millisecond)
	}
	if got, most := dials.Load(), 2+int64(time.Since(start)/time.Second); got > most {
		t.Errorf("50 requests in %s made %d connections, want %d at most", time.Since(start).Round(time.Millisecond),
			got, most)
	}
	checkLines(t, server, "the broker's user may not publish", 1)

	permit(`^(amq\.default|` + topology.DefaultQueue + `)$`)
	accepted := map[string]string{}
	harness.Within(t, comeBack, "a 202", func() bool {
		r := send(t, "POST", server.URL+"/fallback", "after")
		if r.status == http.StatusAccepted {
			accepted[r.id()] = "after"
		}
		return len(accepted) > 0
	})
	server.WaitReady(t)
	checkNoneLost(t, vhost, accepted)
}

// countDials is a way to target that counts the connections that are made on it.
func countDials(t *testing.T, target string) (count *atomic.Int64, address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	count = &atomic.Int64{}
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1])
					pair[0].Close()
				}()
			}
		}
	}()
	return count, ln.Addr().String()
}
