package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// How long an end may take: lingerTimeout for connections to be told, shutdownTimeout for requests in hand after that.
const (
	lingerTimeout   = time.Second
	shutdownTimeout = 7 * time.Second
)

// maxConnections bounds the open connections; what comes beyond them is turned away. An idle one costs about 20 KB, so that
// all of them fit into the container of docker-compose.yml beside the bodies in hand.
const maxConnections = 4096

// Server is a door that listens.
type Server struct {
	http *http.Server

	ending atomic.Bool   // answers ask for the end of their connection
	places chan struct{} // holds one token for each open connection
}

// NewServer returns a server for the door. Connections are bounded, and so is every wait on a client: for the headers
// and the body together by the door's timeout, less what the store needs of it, for taking the answer by twice as much,
// and for the next request by two minutes.
func NewServer(d *Door) *Server {
	o := d.options
	reading := o.Timeout - storeTime(o.Timeout)
	s := &Server{places: make(chan struct{}, maxConnections)}
	s.http = &http.Server{
		Handler:           s.tellEnd(d),
		ConnState:         s.count,
		ReadHeaderTimeout: reading,
		ReadTimeout:       reading,
		WriteTimeout:      2*o.Timeout + time.Second,
		IdleTimeout:       2 * time.Minute,
		// Past this, net/http answers by itself and not with a problem: it leaves room for our own answer.
		MaxHeaderBytes: 4 * o.Limits.Header,
		ErrorLog:       slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// tellEnd has each answer close its connection once the server is ending.
func (s *Server) tellEnd(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.ending.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// storeTime is the part of a request's time that its body may not use up: a publish with a few milliseconds left is
// late, and what is late costs all others their connection to the broker.
func storeTime(timeout time.Duration) time.Duration { return min(timeout/5, time.Second) }

// count gives back the place that Accept took.
func (s *Server) count(_ net.Conn, state http.ConnState) {
	if state == http.StateClosed || state == http.StateHijacked {
		<-s.places
	}
}

// Serve answers requests on ln until ctx ends, and then finishes what it has: it takes no new connection, asks for the
// end of the open ones with their next answers, and returns when the last answer is written, within eight seconds.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(newBounded(ln, s.places)) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve HTTP: %w", err)
	case <-ctx.Done():
	}
	s.ending.Store(true)
	_ = ln.Close()
	served := <-failed
	s.linger()
	timed, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err := s.http.Shutdown(timed)
	if err != nil {
		_ = s.http.Close()
		err = fmt.Errorf("requests were cut off after %s: %w", shutdownTimeout, err)
	}
	if !errors.Is(served, net.ErrClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// linger waits a moment for the connections to go: a busy client's next request may be on its way already, and Shutdown
// would close its connection, which looks idle, under it.
func (s *Server) linger() {
	for end := time.Now().Add(lingerTimeout); len(s.places) > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}
