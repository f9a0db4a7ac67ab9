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

// How long an end may take: farewellTimeout for connections to be told, shutdownTimeout for requests in hand after
// that.
const (
	farewellTimeout = time.Second
	shutdownTimeout = 7 * time.Second
)

// Bounds are what a server has for all who connect to it, whatever they send.
type Bounds struct {
	// Slots is how many connections may be open, beside a few for requests about the server itself.
	Slots int
	// Heads is what all request lines and headers may take together, from their first byte to the answer, beside the
	// little that comes with each slot.
	Heads int64
}

// The bounds of the server, and of a worker's health. With the bodies in hand, they fit into the containers of
// docker-compose.yml.
var (
	ServerBounds = Bounds{Slots: 2048, Heads: 20 << 20}
	HealthBounds = Bounds{Slots: 256, Heads: 4 << 20}
)

// reserveSlots are for requests about the server itself.
const reserveSlots = 16

// Memory is what all of that takes at the most, in bytes.
func (b Bounds) Memory() int64 {
	const idle, away = 20 << 10, 4 << 10 // a connection that waits, and one that is being turned away
	return int64(b.Slots+reserveSlots)*(idle+freeCost) + maxTurnedAway*away + b.Heads
}

// Server is a handler that listens. What strangers may have of it is bounded: connections, heads, and every wait on a
// client.
type Server struct {
	http *http.Server

	slots, reserve *slots
	away           chan struct{} // holds one token for each connection that is being turned away
	heads          account
	headBytes      int
	headTooLong    *refusal
	refused        func(reason string)

	ending atomic.Bool // answers ask for the end of their connection
}

// NewServer returns a server for the door. Waits on a client are bounded: for the headers and the body together by the
// door's timeout, less what the store needs of it; for taking the answer by twice the door's timeout and a second, from
// the end of the headers; and for the next request by two minutes.
func NewServer(d *Door) *Server {
	o := d.options
	// A head may have more bytes than it takes in the message, where a name stands once for all its values.
	s := newServer(d, ServerBounds, 4*o.Limits.Header, o.Log)
	reading := o.Timeout - storeTime(o.Timeout)
	s.http.ReadHeaderTimeout = reading
	s.http.ReadTimeout = reading
	s.http.WriteTimeout = 2*o.Timeout + time.Second
	s.http.IdleTimeout = 2 * time.Minute
	if o.Refused != nil {
		s.refused = o.Refused
	}
	return s
}

// NewHealth returns a server for what a program says about itself.
func NewHealth(h http.Handler, log *slog.Logger) *Server {
	const wait = 5 * time.Second
	s := newServer(h, HealthBounds, 64<<10, log)
	s.http.ReadTimeout, s.http.WriteTimeout, s.http.IdleTimeout = wait, wait, wait
	return s
}

func newServer(h http.Handler, b Bounds, headBytes int, log *slog.Logger) *Server {
	s := &Server{
		slots: newSlots(b.Slots), reserve: newSlots(reserveSlots), away: make(chan struct{}, maxTurnedAway),
		heads: account{most: b.Heads}, headBytes: headBytes,
		headTooLong: &refusal{HeadTooLong, onWire(rawHeadTooLarge(headBytes))},
		refused:     func(string) {},
	}
	s.http = &http.Server{
		Handler: s.handle(h),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ConnState: s.note,
		// Past this, which is past our own bound, net/http answers by itself and not with a problem.
		MaxHeaderBytes: headBytes,
		// Else net/http answers OPTIONS * by itself, and reads its body behind our back.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s
}

// connKey is of the context's value that is the request's connection.
type connKey struct{}

// connOf is the connection of a request, nil on a platform.
func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

// handle begins each request on its connection, and refuses those for which there is no room. The connection is closed
// after the answer if the server is ending, or if it would keep too much.
func (s *Server) handle(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := connOf(r)
		if mayStay := c.begin(r); !mayStay || c.reserve || s.ending.Load() {
			w.Header().Set("Connection", "close")
		}
		if c.reserve && !asksAboutServer(r) {
			s.refused(NoSlot)
			refuse(w, r, overloaded)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// storeTime is the part of a request's time that its body may not use up: a publish with a few milliseconds left is
// late, and what is late costs all others their connection to the broker.
func storeTime(timeout time.Duration) time.Duration { return min(timeout/5, time.Second) }

// note hears of what becomes of a connection.
func (s *Server) note(nc net.Conn, state http.ConnState) {
	c := nc.(*conn)
	switch state {
	case http.StateIdle:
		c.idle()
	case http.StateClosed, http.StateHijacked:
		c.uncount()
		s.leave(c)
	}
}

// Serve answers requests on ln until ctx ends, and then finishes what it has: it takes no new connection, asks for the
// end of the open ones with their next answers, and returns when the last answer is written, within eight seconds. The
// error says that ln failed, or that requests were cut off then.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(listener{ln, s}) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve HTTP: %w", err)
	case <-ctx.Done():
	}
	s.ending.Store(true)
	_ = ln.Close()
	served := <-failed
	s.farewell()
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

// Close ends the server at once, and whatever it has in hand.
func (s *Server) Close() error { return s.http.Close() }

// farewell waits a moment for the connections to go: a busy client's next request may be on its way already, and
// Shutdown would close its connection, which looks idle, under it.
func (s *Server) farewell() {
	for end := time.Now().Add(farewellTimeout); s.slots.taken()+s.reserve.taken() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}
