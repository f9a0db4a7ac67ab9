package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// shutdownTimeout bounds how long requests in hand may take to finish after the server was told to stop.
const shutdownTimeout = 8 * time.Second

// Server is a door that listens.
type Server struct {
	http *http.Server
}

// NewServer returns a server for the door. Every wait on a client is bounded: for the headers and the body together by
// the door's timeout, for taking the answer by as much again, and for the next request by two minutes.
func NewServer(d *Door) *Server {
	o := d.options
	return &Server{&http.Server{
		Handler:           d,
		ReadHeaderTimeout: o.Timeout,
		ReadTimeout:       o.Timeout,
		WriteTimeout:      2*o.Timeout + time.Second,
		IdleTimeout:       2 * time.Minute,
		// Past this, net/http answers by itself and not with a problem: it leaves room for our own answer.
		MaxHeaderBytes: 4 * o.Limits.Header,
		ErrorLog:       slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}}
}

// Serve answers requests on ln until ctx ends, and then finishes those in hand: it takes no new connection, and returns
// when the last answer is written or eight seconds have passed.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve HTTP: %w", err)
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err := s.http.Shutdown(bounded)
	if err != nil {
		_ = s.http.Close()
		err = fmt.Errorf("requests were cut off after %s: %w", shutdownTimeout, err)
	}
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
