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

// functionResult is what a call costs where Fallback is deployed, with the broker a round trip of 20 ms away: medians.
type functionResult struct {
	ExecMB    float64 `json:"exec_mb"`
	ReadyMS   float64 `json:"ready_ms"`      // from the start of the process until it takes its first call
	TripMS    float64 `json:"round_trip_ms"` // as measured with an echo: what delays it wakes up a little late
	ColdTrips int64   `json:"cold_round_trips"`
	ColdMS    float64 `json:"cold_ms"`
	WarmTrips int64   `json:"warm_round_trips"`
	WarmMS    float64 `json:"warm_ms"`
	EndMS     float64 `json:"end_ms,omitempty"` // from being told to end until it has, the longest
}

func functionExec() string {
	return filepath.Join(harness.Root(), "packages", "fallback", "enqueue", "exec")
}

// deployed is one process of a deployed program.
type deployed interface {
	Ready() time.Duration
	Invoke(ctx context.Context, event json.RawMessage) (json.RawMessage, error)
	Close() error
}

// function measures the DigitalOcean Function.
func (w *world) function(starts int) (*functionResult, error) {
	return w.deployed(functionExec(), starts,
		`{"http":{"method":"POST","path":"/orders/42","queryString":"","headers":{"content-type":"text/plain"},"body":"hello"}}`,
		func(amqpURL string) (deployed, error) {
			return deploy.Start(context.Background(),
				deploy.Config{Exec: functionExec(), Env: map[string]string{"AMQP_SERVER_URL": amqpURL}})
		})
}

// deployed starts a program anew a few times and calls it with an event, cold and then warm. One start or call that
// fails is an error: what is left of the others would not say so.
func (w *world) deployed(program string, starts int, event string,
	start func(amqpURL string) (deployed, error)) (*functionResult, error) {
	info, err := os.Stat(program)
	if err != nil {
		return nil, err
	}
	far, err := harness.Far(w.amqp, roundTrip)
	if err != nil {
		return nil, err
	}
	defer far.Close()
	url := strings.Replace(w.amqpURL, w.amqp, far.Addr, 1)
	t := &functionTimes{}
	for i := range starts {
		f, err := start(url)
		if err == nil {
			err = t.calls(f, event, far)
		}
		if err != nil {
			return nil, fmt.Errorf("start %d of %d: %w", i+1, starts, err)
		}
	}
	trip, err := echo(200)
	if err != nil {
		return nil, err
	}
	return &functionResult{
		ExecMB: float64(info.Size()) / 1e6, ReadyMS: spread(t.ready).median, TripMS: trip,
		ColdTrips: t.coldTrips, ColdMS: spread(t.cold).median, WarmTrips: t.warmTrips, WarmMS: spread(t.warm).median,
		EndMS: t.end,
	}, nil
}

// functionTimes are in ms.
type functionTimes struct {
	ready, cold, warm    []float64
	coldTrips, warmTrips int64 // the most
	end                  float64
}

// calls calls one process ten times, and ends it.
func (t *functionTimes) calls(f deployed, event string, far *harness.Distance) (err error) {
	defer func() {
		told := time.Now()
		err = errors.Join(err, f.Close())
		t.end = max(t.end, harness.Millis(time.Since(told)))
	}()
	t.ready = append(t.ready, harness.Millis(f.Ready()))
	for i := range 10 {
		before, start := far.RoundTrips(), time.Now()
		if err := call(f, event); err != nil {
			return err
		}
		took, trips := harness.Millis(time.Since(start)), far.RoundTrips()-before
		if trips == 0 {
			return errors.New("it answered without the broker")
		}
		if i == 0 {
			t.cold, t.coldTrips = append(t.cold, took), max(t.coldTrips, trips)
		} else {
			t.warm, t.warmTrips = append(t.warm, took), max(t.warmTrips, trips)
		}
	}
	return nil
}

func call(f deployed, event string) error {
	result, err := f.Invoke(context.Background(), json.RawMessage(event))
	if err != nil {
		return err
	}
	var response struct{ StatusCode int }
	if err := json.Unmarshal(result, &response); err != nil {
		return err
	}
	if response.StatusCode != 202 {
		return fmt.Errorf("it answered %s", result)
	}
	return nil
}

// echo is what a round trip takes over the distance at which the broker is put, to a peer that answers at once: the
// median of n, in ms.
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
		times = append(times, harness.Millis(time.Since(start)))
	}
	return spread(times).median, nil
}
