package harness

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Primary is an API that remembers every request as it came over the wire, and answers as a test says.
type Primary struct {
	// URL is its base URL; it stays the same while the primary is down.
	URL string

	answer func(Received) Answer
	addr   string

	mu       sync.Mutex // guards the rest
	listener net.Listener
	conns    map[net.Conn]bool // true while a request on it has no whole answer
	taken    int               // of these, so far
	got      []Received
}

// Received is a request that has reached the primary.
type Received struct {
	// Raw is all of it, as it came.
	Raw            []byte
	Method, Target string
	Host           string // that it was sent to
	Header         http.Header
	Body           []byte
	At             time.Time
}

// Answer is what the primary says. The zero value is a 200.
type Answer struct {
	Status     int
	RetryAfter int // seconds; 0 for none
	Header     map[string]string
	Body       string
	After      time.Duration   // it takes its time
	Until      <-chan struct{} // it waits for that to be closed, if it is not nil
	Hang       bool            // it says nothing, and closes the connection
	Cut        bool            // the connection is reset in the middle of the answer
}

// NewPrimary starts one. answer is called for each request but probes (GET /), which are answered with 200.
func NewPrimary(t testing.TB, answer func(Received) Answer) *Primary {
	t.Helper()
	if answer == nil {
		answer = func(Received) Answer { return Answer{} }
	}
	p := &Primary{answer: answer, conns: map[net.Conn]bool{}}
	p.Up(t)
	p.URL = "http://" + p.addr
	t.Cleanup(p.Down)
	return p
}

// Up makes it listen.
func (p *Primary) Up(t testing.TB) {
	t.Helper()
	address := "127.0.0.1:0"
	if p.addr != "" {
		address = p.addr
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addr, p.listener = ln.Addr().String(), ln
	go p.serve(ln)
}

// Down takes it away: nobody listens, and its connections are reset, or closed where nothing is under way: a reset
// would take back an answer that was not read yet.
func (p *Primary) Down() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
	}
	p.listener = nil
	for conn, pending := range p.conns {
		if tcp, ok := conn.(*net.TCPConn); ok && pending {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
}

// Got are the requests so far, in the order in which they came, without probes.
func (p *Primary) Got() []Received {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Received(nil), p.got...)
}

// Connections is how many have been made so far.
func (p *Primary) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// Pending is how many requests have no whole answer yet.
func (p *Primary) Pending() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	pending := 0
	for _, is := range p.conns {
		if is {
			pending++
		}
	}
	return pending
}

func (p *Primary) serve(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.conns[conn] = false
		p.taken++
		p.mu.Unlock()
		go func() {
			defer func() {
				_ = conn.Close()
				p.mu.Lock()
				delete(p.conns, conn)
				p.mu.Unlock()
			}()
			p.converse(conn)
		}()
	}
}

func (p *Primary) converse(conn net.Conn) {
	var seen bytes.Buffer
	in := bufio.NewReader(io.TeeReader(conn, &seen))
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		one := Received{
			Raw:    bytes.Clone(seen.Next(seen.Len() - in.Buffered())),
			Method: r.Method, Target: r.RequestURI, Host: r.Host, Header: r.Header, Body: body, At: time.Now(),
		}
		if !p.reply(conn, one) {
			return
		}
	}
}

// reply answers one request, and says whether the connection goes on.
func (p *Primary) reply(conn net.Conn, to Received) bool {
	var answer Answer
	if to.Header.Get("User-Agent") != "fallback-probe" {
		p.mu.Lock()
		p.got = append(p.got, to)
		p.conns[conn] = true
		p.mu.Unlock()
		defer func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.conns[conn] { // else it was taken off the list
				p.conns[conn] = false
			}
		}()
		answer = p.answer(to)
	}
	time.Sleep(answer.After)
	if answer.Until != nil {
		<-answer.Until
	}
	if answer.Hang {
		return false
	}
	wire := answer.wire()
	if tcp, ok := conn.(*net.TCPConn); ok && answer.Cut {
		_, _ = io.WriteString(conn, wire[:len(wire)/2])
		_ = tcp.SetLinger(0)
		return false
	}
	_, err := io.WriteString(conn, wire)
	return err == nil
}

func (a Answer) wire() string {
	status := a.Status
	if status == 0 {
		status = http.StatusOK
	}
	var b strings.Builder
	b.WriteString("HTTP/1.1 " + strconv.Itoa(status) + " " + http.StatusText(status) + "\r\nContent-Length: " +
		strconv.Itoa(len(a.Body)) + "\r\n")
	if a.RetryAfter > 0 {
		b.WriteString("Retry-After: " + strconv.Itoa(a.RetryAfter) + "\r\n")
	}
	for name, value := range a.Header {
		b.WriteString(name + ": " + value + "\r\n")
	}
	b.WriteString("\r\n" + a.Body)
	return b.String()
}
