package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"fallback/functions/drain"
	"fallback/functions/httpapi"
	"fallback/functions/problem"
	"fallback/functions/rabbit"
)

// health is what a worker answers over HTTP: that it lives, whether it is ready, and what it has done.
type health struct {
	address string
	log     *slog.Logger
	metrics http.Handler
	ready   func() error
}

// while answers until work has returned, whose error it returns.
func (h health) while(ctx context.Context, work func(context.Context) error) error {
	listener, err := net.Listen("tcp", h.address)
	if err != nil {
		return fmt.Errorf("FALLBACK_DRAIN_ADDR: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { httpapi.Live(w) })
	mux.HandleFunc("GET /readyz", h.answerReady)
	mux.Handle("GET /metrics", h.metrics)
	server := httpapi.NewHealth(mux, h.log)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(context.WithoutCancel(ctx), listener) })
	defer serving.Wait()
	defer server.Close()
	return work(ctx)
}

func (h health) answerReady(w http.ResponseWriter, _ *http.Request) {
	err := h.ready()
	if err == nil {
		httpapi.Ready(w)
		return
	}
	kind, detail := rabbit.ErrUnavailable.Code(), "The worker cannot reach the queue; its log says why."
	switch {
	case errors.Is(err, drain.ErrLoop):
		kind, detail = problem.Loop, "The target leads back to a door of Fallback, and not to the API: set "+
			"FALLBACK_TARGET_URL to the API itself."
	case errors.Is(err, drain.ErrHandOver):
		kind, detail = rabbit.ErrHandOver.Code(), "The broker cannot hand over a message of the queue; what is "+
			"behind it is delivered. docs/drain.md says what to do with it."
	}
	problem.New(http.StatusServiceUnavailable, kind, detail).Write(w)
}
