package main

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// repeat is n operations that are all the same.
func repeat(n int, do operation) []operation {
	all := make([]operation, n)
	for i := range all {
		all[i] = do
	}
	return all
}

func takes(d time.Duration) operation {
	return func() error {
		time.Sleep(d)
		return nil
	}
}

func TestOpenLoopKeepsTheRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := openLoop(repeat(8, takes(5*time.Millisecond)), 1000, time.Second)
		if s.Requests != 1000 || s.Dropped != 0 {
			t.Errorf("%d requests, %d dropped, want 1000 and none", s.Requests, s.Dropped)
		}
		if s.P50 != 5 || s.P99 != 5 {
			t.Errorf("p50 %v ms, p99 %v ms, want 5: no request waits for another", s.P50, s.P99)
		}
		if s.PerSecond < 990 || s.PerSecond > 1000 {
			t.Errorf("%v/s, want 1000 but for the last few", s.PerSecond)
		}
	})
}

// TestOpenLoopCountsTheStall holds that the requests that were due while the system stood still are late: they are the
// ones that a closed loop would never send.
func TestOpenLoopCountsTheStall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		s := openLoop(repeat(1, func() error {
			if since := time.Since(begin); since >= 400*time.Millisecond && since < 500*time.Millisecond {
				time.Sleep(500*time.Millisecond - since)
			}
			return nil
		}), 1000, time.Second)
		if s.Requests != 1000 || s.Dropped != 0 {
			t.Errorf("%d requests, %d dropped, want 1000 and none", s.Requests, s.Dropped)
		}
		if s.P50 != 0 || s.P99 != 90 {
			t.Errorf("p50 %v ms, p99 %v ms, want 0 and 90: each was measured from when it was due", s.P50, s.P99)
		}
	})
}

// TestOpenLoopEnds holds that a system that cannot keep up ends in time, with what it reached.
func TestOpenLoopEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := openLoop(repeat(2, takes(100*time.Millisecond)), 1000, time.Second)
		if took := time.Since(start); took > 1100*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		if s.PerSecond < 18 || s.PerSecond > 20 || s.Dropped < 970 {
			t.Errorf("%v/s and %d dropped, want 20 and what is left of 1000", s.PerSecond, s.Dropped)
		}
	})
}

// TestClosedLoopLeavesOutTheTail holds that the throughput is that of the time alone.
func TestClosedLoopLeavesOutTheTail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := closedLoop(repeat(10, takes(400*time.Millisecond)), time.Second)
		if s.PerSecond != 20 || s.Requests != 30 || s.P99 != 400 {
			t.Errorf("%v/s, %d requests, p99 %v ms; want 20, 30 and 400", s.PerSecond, s.Requests, s.P99)
		}
	})
}

func TestFailuresAreCountedOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		refuse := func() error { return errors.New("no") }
		s := closedLoop([]operation{takes(20 * time.Millisecond), refuse}, time.Second)
		if s.Requests != 50 || s.PerSecond != 50 || s.P50 != 20 || s.Errors != 100 {
			t.Errorf("got %+v, want 50 requests of 20 ms and 100 errors", s)
		}
		s = closedLoop(repeat(2, refuse), time.Second)
		if s.Requests != 0 || s.P99 != 0 || s.Errors != 200 {
			t.Errorf("got %+v, want errors and nothing else", s)
		}
	})
}

func TestExactly(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	s := exactly(repeat(128, func() error { sent.Add(1); return nil }), 10_001)
	if s.Requests != 10_001 || sent.Load() != 10_001 {
		t.Errorf("%d requests, %d sent, want 10001", s.Requests, sent.Load())
	}
}

// TestConnectionGoesOn holds that an answer that is not wanted is one error, and that a connection that the server
// closes, announced or not, is dialled anew.
func TestConnectionGoesOn(t *testing.T) {
	t.Parallel()
	var n, connections atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch n.Add(1) {
		case 2:
			http.Error(w, "busy", http.StatusServiceUnavailable)
		case 3:
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusAccepted)
		case 4:
			panic(http.ErrAbortHandler)
		default:
			w.WriteHeader(http.StatusAccepted)
		}
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	operations, closeAll, err := httpOperations(1, strings.TrimPrefix(server.URL, "http://"), "/", "", []byte("x"),
		http.StatusAccepted)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll()
	for i, fails := range []bool{false, true, false, true, false, false} {
		if err := operations[0](); (err != nil) != fails {
			t.Errorf("request %d: %v, want an error: %v", i+1, err, fails)
		}
	}
	if got := connections.Load(); got != 3 {
		t.Errorf("%d connections, want 3", got)
	}
}
