package httpapi

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a connection as net/http sees it. It counts each head that comes over it before net/http parses it, and
// refuses one that is over a bound.
//
// So that it knows where a head begins, net/http gets no byte behind the end of the head or body that it is reading:
// else up to 4 KB of the next head would be in its buffer uncounted, which is room for 1,000 fields.
//
// What is not atomic belongs to net/http's reading, which is never done twice at the same time; until the body has
// been read to its end, that is done by the handler.
type conn struct {
	net.Conn
	server  *Server
	address netip.Prefix
	reserve bool // its slot is one of those for requests about the server itself

	head    head
	framing framing
	inBody  bool
	rest    []byte            // what has been received behind the end of what net/http reads
	buffer  *[bufferSize]byte // where rest is
	cost    int64             // of what has come of heads and trailers since the connection was idle
	// bytes of the request line that net/http keeps while the connection waits for the next one
	line  int64
	wrote bool // something has been answered since then

	charged  atomic.Int64 // of cost, what the server's account counts
	stage    atomic.Int32
	since    atomic.Int64           // when it began to wait, or the head to come: Unix nanoseconds
	arriving atomic.Pointer[intake] // the body that is on its way in

	refusal atomic.Pointer[refusal]
}

// A connection's stages: it waits for a head, or for the rest of one; it is busy from the end of the head until the
// answer is written; its request was refused, and what is left of the body is read so that the answer arrives; or it
// has lost its slot.
const (
	waiting = iota
	busy
	lingering
	evicted
)

// bufferSize is that of net/http's buffer, which it reads heads through.
const bufferSize = 4 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// An error of errRefused's type makes net/http end the connection without a word of its own.
var (
	errRefused error = &net.OpError{Op: "read", Net: "tcp", Err: errors.New("it is turned away")}
	errTrailer       = errors.New("the trailer does not end as it should")
)

func newConn(inner net.Conn, s *Server) *conn {
	c := &conn{Conn: inner, server: s, address: network(inner.RemoteAddr())}
	c.since.Store(time.Now().UnixNano())
	return c
}

// network is whose connection it is: an address, or the 64 bits of one that an IPv6 host has for itself.
func network(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	prefix, _ := ip.Prefix(bits)
	return prefix
}

func (c *conn) Read(p []byte) (int, error) {
	if c.rest != nil {
		n, err := c.take(p[:copy(p, c.rest)])
		c.rest = c.rest[n:]
		if len(c.rest) == 0 {
			buffers.Put(c.buffer)
			c.rest, c.buffer = nil, nil
		}
		return n, err
	}
	n, err := c.Conn.Read(p[:min(int64(len(p)), max(bufferSize, c.framing.left))])
	if n == 0 {
		return 0, err
	}
	taken, err := c.take(p[:n]) // what ended the connection, if anything did, is there for the next call
	if err == nil && taken < n {
		c.buffer = buffers.Get().(*[bufferSize]byte)
		c.rest = c.buffer[:copy(c.buffer[:], p[taken:n])]
	}
	return taken, err
}

// take takes what net/http may have of p: at least a byte, or there is an error.
func (c *conn) take(p []byte) (int, error) {
	if c.inBody {
		return c.takeBody(p)
	}
	return c.takeHead(p)
}

func (c *conn) takeBody(p []byte) (int, error) {
	before := c.framing.trailer.cost()
	n, ended := c.framing.take(p)
	c.inBody = !ended
	switch {
	case c.framing.trailer.fields() > maxFields:
		return 0, c.refuse(c.server.headTooLong)
	case !c.charge(c.framing.trailer.cost() - before):
		return 0, c.refuse(headsFull)
	}
	return n, nil
}

func (c *conn) takeHead(p []byte) (int, error) {
	if c.head.bytes == 0 {
		c.since.Store(time.Now().UnixNano())
	}
	before := c.head.cost()
	n, ended := c.head.take(p)
	charged := c.charge(c.head.cost() - before)
	switch {
	case c.stage.Load() == busy:
		// net/http reads one byte ahead, to see whether the client has gone. More than one means that it has missed
		// the end of a trailer, whose lines do not end as they should.
		if c.head.bytes > 1 {
			return 0, errTrailer
		}
	case c.head.bytes > c.server.headBytes || c.head.fields() > maxFields:
		return 0, c.refuse(c.server.headTooLong)
	case !charged:
		return 0, c.refuse(headsFull)
	}
	if ended {
		c.head = head{}
		if !c.stage.CompareAndSwap(waiting, busy) {
			return 0, errRefused
		}
	}
	return n, nil
}

// charge says whether there is room for what has come.
func (c *conn) charge(cost int64) bool {
	c.cost += cost
	all := max(0, c.cost-freeCost)
	more := all - c.charged.Load()
	if more > 0 {
		if c.reserve || !c.server.makeRoom(more, all) { // who asks about the server itself needs no more
			return false
		}
		c.charged.Add(more)
	}
	return true
}

// uncount ends what the account counts of it, when net/http keeps nothing of what it had parsed.
func (c *conn) uncount() {
	if c.charged.Load() > 0 { // else the account need not be taken from another core, which most requests would
		c.server.heads.add(-c.charged.Swap(0))
	}
}

// maxKeptLine bounds the request line that an idle connection may have behind it. net/http keeps the method of the
// last request until the next one comes, and with it the whole line, which it is a part of: 800 idle connections with
// lines of 240 KB took 190 MB.
const maxKeptLine = 2 << 10

// begin is called when net/http has read a head, and before anybody reads the body. It says whether there may be
// another request behind this one.
func (c *conn) begin(r *http.Request) (mayStay bool) {
	c.line = int64(len(r.Method) + len(r.RequestURI) + len(r.Proto))
	if r.Body != http.NoBody { // else net/http may be reading the next head already
		c.framing, c.inBody = newFraming(r.ContentLength), true
	}
	return c.line <= maxKeptLine
}

// idle is called when a request has been answered. Of the next one there may be a byte.
func (c *conn) idle() {
	c.uncount()
	c.cost, c.wrote = c.line+c.head.cost(), false
	c.since.Store(time.Now().UnixNano())
	c.stage.Store(waiting)
}

// mayLose says whether it may lose its slot. One that is busy keeps it, unless its request's body trickles.
func (c *conn) mayLose(now time.Time) bool {
	switch c.stage.Load() {
	case waiting, lingering:
		return true
	case busy:
		b := c.arriving.Load()
		return b != nil && b.trickles(now)
	}
	return false
}

// evict takes its slot from a connection that may lose it.
func (c *conn) evict() bool {
	stage := c.stage.Load()
	return c.mayLose(time.Now()) && c.stage.CompareAndSwap(stage, evicted)
}

// setLingering is called when a request has been refused before its body was read.
func (c *conn) setLingering() { c.stage.CompareAndSwap(busy, lingering) }

// refuse ends the connection with that answer. Where something has been written, as a 100 Continue, the error is for
// the reader of the body, which answers.
func (c *conn) refuse(r *refusal) error {
	if c.wrote {
		return r
	}
	c.refusal.Store(r)
	return errRefused
}

// Write keeps other answers from what is refused: net/http takes a line without an end for a bad one, and the door a
// body.
func (c *conn) Write(p []byte) (int, error) {
	if c.refusal.Load() != nil {
		return 0, errRefused
	}
	c.wrote = true
	return c.Conn.Write(p)
}

// Close ends the connection, after its client has been told why if it was refused. By then net/http keeps nothing of
// what it had parsed.
func (c *conn) Close() error {
	if r := c.refusal.Swap(nil); r != nil {
		c.server.turnAway(c.Conn, r)
		return nil
	}
	return c.Conn.Close()
}

// CloseWrite is the half-close that net/http looks for: without it a refusal may be lost.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
