package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	ReadyMS   float64 `json:"ready_ms"` // from the start of the process to {"ok":true}
	ColdTrips int64   `json:"cold_round_trips"`
	ColdMS    float64 `json:"cold_ms"`
	WarmTrips int64   `json:"warm_round_trips"`
	WarmMS    float64 `json:"warm_ms"`
}

// function starts the built function anew a few times and calls it, cold and then warm.
func (w *world) function(starts int) (*functionResult, error) {
	exec := filepath.Join(harness.Root(), "packages", "fallback", "enqueue", "exec")
	info, err := os.Stat(exec)
	if err != nil {
		return nil, fmt.Errorf("%w: run make function first", err)
	}
	far, err := harness.Far(w.broker.IP()+":5672", roundTrip)
	if err != nil {
		return nil, err
	}
	defer far.Close()
	url := strings.Replace(w.amqpURL, w.broker.IP()+":5672", far.Addr, 1)
	r := &functionResult{ExecMB: float64(info.Size()) / 1e6}
	var ready, cold, warm []time.Duration
	for range starts {
		f, err := deploy.Start(context.Background(), deploy.Config{Exec: exec, Env: map[string]string{"AMQP_SERVER_URL": url}})
		if err != nil {
			return nil, err
		}
		ready = append(ready, f.Ready())
		for i := range 10 {
			before, start := far.RoundTrips(), time.Now()
			if err := call(f); err != nil {
				return nil, err
			}
			took, trips := time.Since(start), far.RoundTrips()-before
			if i == 0 {
				cold, r.ColdTrips = append(cold, took), max(r.ColdTrips, trips)
			} else {
				warm, r.WarmTrips = append(warm, took), max(r.WarmTrips, trips)
			}
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	r.ReadyMS, r.ColdMS, r.WarmMS = median(ready), median(cold), median(warm)
	return r, nil
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

func median(d []time.Duration) float64 {
	slices.Sort(d)
	return ms(d[len(d)/2])
}
