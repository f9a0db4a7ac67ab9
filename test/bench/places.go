package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"runtime"
	"time"

	"fallback/test/deploy"
	"fallback/test/harness"
)

// The places to run Fallback in, side by side: the server, the DigitalOcean Function, the AWS Lambda.

func lambdaBootstrap() string {
	return filepath.Join(harness.Root(), "dist", "lambda-"+runtime.GOARCH, "bootstrap")
}

// lambda measures the AWS Lambda.
func (w *world) lambda(starts int) (*functionResult, error) {
	return w.deployed(lambdaBootstrap(), starts,
		`{"version":"2.0","rawPath":"/orders/42","headers":{"content-type":"text/plain"},"body":"hello",`+
			`"requestContext":{"http":{"method":"POST","protocol":"HTTP/1.1","sourceIp":"203.0.113.7"}}}`,
		func(amqpURL string) (deployed, error) {
			return deploy.StartLambda(context.Background(),
				deploy.LambdaConfig{Bootstrap: lambdaBootstrap(), Env: map[string]string{"AMQP_SERVER_URL": amqpURL}})
		})
}

// server measures `fallback serve`, which connects before its first call: none of its calls is cold.
func (w *world) server(starts int) (*functionResult, error) {
	result, err := w.deployed(w.fallback, starts, "hello", func(amqpURL string) (deployed, error) {
		far := *w
		far.amqpURL = amqpURL
		begin := time.Now()
		p, err := launch(&far, "fallback", w.addr)
		if err != nil {
			return nil, err
		}
		s := &served{process: p, url: "http://" + w.addr}
		for end := time.Now().Add(15 * time.Second); !s.isReady(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				p.stop()
				return nil, fmt.Errorf("the server did not get ready")
			}
		}
		s.ready = time.Since(begin)
		return s, nil
	})
	if result != nil {
		result.ColdTrips, result.ColdMS = 0, 0
	}
	return result, err
}

// served is a server as one that is called with events, which are bodies.
type served struct {
	*process
	url   string
	ready time.Duration
}

func (s *served) isReady() bool {
	response, err := http.Get(s.url + "/readyz")
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func (s *served) Ready() time.Duration { return s.ready }

func (s *served) Invoke(_ context.Context, body json.RawMessage) (json.RawMessage, error) {
	response, err := http.Post(s.url+"/fallback/orders/42", "text/plain", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return fmt.Appendf(nil, `{"statusCode":%d}`, response.StatusCode), err
}

func (s *served) Close() error {
	s.stop()
	return nil
}

// placesTable is what a call costs in each place; what was not measured is –.
func (r *results) placesTable(b *bytes.Buffer) {
	fmt.Fprint(b, "\n## In each place\n\n")
	heading(b, "", "server", "DigitalOcean Function", "AWS Lambda")
	line := func(what string, figure func(*functionResult) string) {
		cells := []string{what}
		for _, f := range []*functionResult{r.Server, r.Function, r.Lambda} {
			if f == nil {
				cells = append(cells, "–")
			} else {
				cells = append(cells, figure(f))
			}
		}
		row(b, cells...)
	}
	line("program, MB", func(f *functionResult) string { return fmt.Sprintf("%.1f", f.ExecMB) })
	line("start to ready, ms", func(f *functionResult) string { return fmt.Sprintf("%.0f", f.ReadyMS) })
	line(fmt.Sprintf("a cold call, round trips of %s to the broker", roundTrip), func(f *functionResult) string {
		if f.ColdTrips == 0 {
			return "none is cold"
		}
		return fmt.Sprintf("%d (%.0f ms)", f.ColdTrips, f.ColdMS)
	})
	line("a warm call, round trips", func(f *functionResult) string {
		return fmt.Sprintf("%d (%.0f ms)", f.WarmTrips,
			f.WarmMS)
	})
	fmt.Fprint(b, "\nThe server connects before it says that it is ready, a function at its first call. The "+
		"platforms' own part of a cold start "+
		"is not in it.\n")
}
