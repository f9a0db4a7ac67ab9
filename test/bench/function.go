package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"fallback/test/deploy"
	"fallback/test/harness"
)

// roundTrip is how far the broker is from the function that is measured.
const roundTrip = 20 * time.Millisecond

// functionResult is what a call of the DigitalOcean Function costs, with the broker a round trip of 20 ms away: medians.
type functionResult struct {
	ExecMB    float64 `json:"exec_mb"`
	ReadyMS   float64 `json:"ready_ms"`      // from the start of the process to {"ok":true}
	TripMS    float64 `json:"round_trip_ms"` // as measured with an echo: what delays it wakes up a little late
	ColdTrips int64   `json:"cold_round_trips"`
	ColdMS    float64 `json:"cold_ms"`
	WarmTrips int64   `json:"warm_round_trips"`
	WarmMS    float64 `json:"warm_ms"`
	Errors    int     `json:"errors"` // starts that failed, at a call or before
}

func functionExec() string {
	return filepath.Join(harness.Root(), "packages", "fallback", "enqueue", "exec")
}

// function starts the built function anew a few times and calls it, cold and then warm.
func (w *world) function(starts int) (*functionResult, error) {
	info, err := os.Stat(functionExec())
	if err != nil {
		return nil, err
	}
	far, err := harness.Far(w.broker.IP()+":5672", roundTrip)
	if err != nil {
		return nil, err
	}
	defer far.Close()
	url := strings.Replace(w.amqpURL, w.broker.IP()+":5672", far.Addr, 1)
	trip, err := echo(200)
	if err != nil {
		return nil, err
	}
	t := &functionTimes{}
	for range starts {
		if err := t.start(url, far); err != nil {
			t.errors++
			fmt.Fprintln(os.Stderr, "function:", err)
		}
	}
	return &functionResult{
		ExecMB: float64(info.Size()) / 1e6, ReadyMS: spread(t.ready).median, TripMS: trip, Errors: t.errors,
		ColdTrips: t.coldTrips, ColdMS: spread(t.cold).median, WarmTrips: t.warmTrips, WarmMS: spread(t.warm).median,
	}, nil
}

// functionTimes are in ms.
type functionTimes struct {
	ready, cold, warm    []float64
	coldTrips, warmTrips int64 // the most
	errors               int
}

// start starts the function once and calls it ten times.
func (t *functionTimes) start(url string, far *harness.Distance) (err error) {
	f, err := deploy.Start(context.Background(), deploy.Config{Exec: functionExec(), Env: map[string]string{"AMQP_SERVER_URL": url}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	t.ready = append(t.ready, ms(f.Ready()))
	for i := range 10 {
		before, start := far.RoundTrips(), time.Now()
		if err := call(f); err != nil {
			return err
		}
		took, trips := ms(time.Since(start)), far.RoundTrips()-before
		if i == 0 {
			t.cold, t.coldTrips = append(t.cold, took), max(t.coldTrips, trips)
		} else {
			t.warm, t.warmTrips = append(t.warm, took), max(t.warmTrips, trips)
		}
	}
	return nil
}

func call(f *deploy.Function) error {
	result, err := f.Invoke(context.Background(), json.RawMessage(
		`{"http":{"method":"POST","path":"/orders/42","queryString":"","headers":{"content-type":"text/plain"},"body":"hello"}}`))
	if err != nil {
		return err
	}
	var response struct{ StatusCode int }
	if err := json.Unmarshal(result, &response); err != nil {
		return err
	}
	if response.StatusCode != 202 {
		return fmt.Errorf("the function answered %s", result)
	}
	return nil
}

// echo is what a round trip takes over the distance at which the broker is put, to a peer that answers at once: the median
// of n, in ms.
func echo(n int) (float64, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.Copy(conn, conn)
	}()
	far, err := harness.Far(ln.Addr().String(), roundTrip)
	if err != nil {
		return 0, err
	}
	defer far.Close()
	conn, err := net.Dial("tcp", far.Addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	var times []float64
	for range n {
		start := time.Now()
		if _, err := conn.Write([]byte{1}); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			return 0, err
		}
		times = append(times, ms(time.Since(start)))
	}
	return spread(times).median, nil
}
