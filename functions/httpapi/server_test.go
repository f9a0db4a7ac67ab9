package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/envelope"
)

// pipes is a listener on pipes, whose waits are those of a synctest bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// dial is nil when nobody takes the connection.
func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client
	case <-time.After(time.Hour):
		return nil
	}
}

// listen serves until the test ends.
func listen(t *testing.T, s *Server) *pipes {
	t.Helper()
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, p) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return p
}

// answer is the next answer on a connection, and its body.
func answer(t *testing.T, in *bufio.Reader) (*http.Response, string) {
	t.Helper()
	response, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

// TestSlowBodyLeavesTimeToStore holds that a body which takes its time does not take that of the store, too: it is late
// while there is still enough for a publish.
func TestSlowBodyLeavesTimeToStore(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		timeout, body time.Duration
		status        int
	}{
		{5 * time.Second, 3900 * time.Millisecond, 202},
		{5 * time.Second, 4100 * time.Millisecond, 408},
		{time.Second, 790 * time.Millisecond, 202},
		{time.Second, 810 * time.Millisecond, 408},
		{time.Minute, 58900 * time.Millisecond, 202},
		{time.Minute, 59100 * time.Millisecond, 408},
	} {
		t.Run(fmt.Sprint(row.body, " of ", row.timeout), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := options()
				o.Timeout = row.timeout
				left := time.Duration(-1)
				ln := listen(t, NewServer(door(t, o, store{publish: func(ctx context.Context, _ *envelope.Request) error {
					deadline, _ := ctx.Deadline()
					left = time.Until(deadline)
					return nil
				}})))
				client := ln.dial()
				defer client.Close()
				start := time.Now()
				var sender sync.WaitGroup
				defer sender.Wait()
				sender.Go(func() {
					_, _ = io.WriteString(client, "POST /fallback HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nx")
					time.Sleep(row.body)
					_, _ = io.WriteString(client, "y")
				})
				response, body := answer(t, bufio.NewReader(client))
				if response.StatusCode != row.status {
					t.Errorf("got %s %s, want %d", response.Status, body, row.status)
				}
				if took := time.Since(start); took > row.timeout {
					t.Errorf("the answer took %s", took)
				}
				if row.status == 202 && left < storeTime(row.timeout) {
					t.Errorf("the store has %s, want at least %s", left, storeTime(row.timeout))
				}
				if row.status != 202 && left >= 0 {
					t.Error("it was stored")
				}
			})
		})
	}
}

// TestRefusalIsAtOnce holds that an answer which does not depend on the body does not wait for a sender of one, and
// that the connection of a sender whose body is here goes on.
func TestRefusalIsAtOnce(t *testing.T) {
	t.Parallel()
	const head = "POST /fallback HTTP/1.1\r\nHost: h\r\n"
	for _, row := range []struct {
		name, head string
		change     func(*Options)
		status     int
	}{
		{"no token", head + "Content-Length: 10\r\n\r\n", func(o *Options) { o.Tokens = []string{"one"} }, 401},
		{"no token, chunked", head + "Transfer-Encoding: chunked\r\n\r\n",
			func(o *Options) { o.Tokens = []string{"one"} }, 401},
		{"a length over the limit", head + "Content-Length: 17\r\n\r\n", nil, 413},
		{"a length far over the limit", head + "Content-Length: 1000000\r\n\r\n", nil, 413},
		{"too much in hand", head + "Content-Length: 10\r\n\r\n", func(o *Options) { o.InFlight = 0 }, 503},
		{"too often", head + "Content-Length: 10\r\n\r\n", func(o *Options) { o.Rate = 1e-9 }, 429},
		{"another method", strings.Replace(head, "POST", "BREW", 1) + "Content-Length: 10\r\n\r\n", nil, 503},
		{"another path", strings.Replace(head, "/fallback", "/", 1) + "Content-Length: 10\r\n\r\n", nil, 404},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := options()
				o.Timeout = 10 * time.Second
				if row.change != nil {
					row.change(&o)
				}
				d := door(t, o, store{})
				if o.Rate > 0 {
					d.limiter.Allow() // the one
				}
				ln := listen(t, NewServer(d))

				slow := ln.dial()
				defer slow.Close()
				start := time.Now()
				var sender sync.WaitGroup
				defer sender.Wait()
				sender.Go(func() {
					_, err := io.WriteString(slow, row.head)
					for err == nil { // a byte of a body, or of a chunk's size
						_, err = io.WriteString(slow, "1")
						time.Sleep(time.Second)
					}
				})
				in := bufio.NewReader(slow)
				response, body := answer(t, in)
				if response.StatusCode != row.status || response.ContentLength < 0 {
					t.Errorf("got %s %s of length %d, want %d", response.Status, body, response.ContentLength,
						row.status)
				}
				if took := time.Since(start); took > 300*time.Millisecond {
					t.Errorf("the answer took %s", took)
				}
				if !response.Close {
					t.Error("the rest of the body would be taken for the next request")
				}
				if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
					t.Errorf("after the answer came %q, %v", rest, err)
				}
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("the connection took %s to end", took)
				}

				if strings.Contains(row.head, "Content-Length: 10\r\n") {
					whole := ln.dial()
					defer whole.Close()
					in := bufio.NewReader(whole)
					for range 2 {
						go func() { _, _ = io.WriteString(whole, row.head+"0123456789") }()
						response, body := answer(t, in)
						if response.StatusCode != row.status || response.Close {
							t.Errorf("with its body: got %s %s, closing %v, want %d", response.Status, body,
								response.Close, row.status)
						}
						time.Sleep(3 * time.Second) // whatever the server still waits for does not end the connection
					}
				}
			})
		})
	}
}
