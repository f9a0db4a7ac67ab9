package httpapi

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"time"

	"fallback/functions/problem"
)

// listener hands on no more connections than there are slots. What comes beyond them gets a 503 and the end of its
// connection: left in the system's backlog, it would be answered late, or never.
type listener struct {
	net.Listener
	server *Server
}

func (l listener) Accept() (net.Conn, error) {
	for {
		inner, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := newConn(inner, l.server); l.server.admit(c) {
			return c, nil
		}
		l.server.turnAway(inner, noSlot)
	}
}

// admit gives a connection a slot: one of the reserve when nobody may lose its own.
func (s *Server) admit(c *conn) bool {
	loser, ok := s.slots.take(c)
	if !ok {
		c.reserve = true
		loser, ok = s.reserve.take(c)
	}
	if loser != nil {
		s.refused(LostSlot)
		_ = loser.Conn.Close()
	}
	return ok
}

// makeRoom charges a head for n more bytes, total in all. When there are too few, the connection with the largest head
// of those with more than total loses its slot, so that large heads without an end keep no smaller ones out. Its bytes
// are free once net/http has forgotten it: sooner, more would be in memory than is counted.
func (s *Server) makeRoom(n, total int64) bool {
	if s.heads.hold(n) {
		return true
	}
	loser := s.slots.evictLargest(total)
	if loser == nil {
		return false
	}
	s.refused(HeadsFull)
	_ = loser.Conn.Close()
	for end := time.Now().Add(roomPatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if s.heads.hold(n) {
			return true
		}
	}
	return false
}

// leave gives the slot of a connection back.
func (s *Server) leave(c *conn) {
	if c.reserve {
		s.reserve.leave(c)
	} else {
		s.slots.leave(c)
	}
}

const (
	// maxTurnedAway bounds those that are told; more are closed without a word. One costs about 4 KB.
	maxTurnedAway = 2048
	// turnAwayTime bounds how long one of them is listened to.
	turnAwayTime = time.Second
)

// Why connections are turned away.
const (
	NoSlot      = "no-slot"       // there was no slot, but for requests about the server itself
	LostSlot    = "lost-slot"     // it waited longest, and another one came
	HeadTooLong = "head-too-long" // in bytes, or in fields
	HeadsFull   = "heads-full"    // all heads together take what they may
)

// Refusals are all of them.
func Refusals() []string { return []string{NoSlot, LostSlot, HeadTooLong, HeadsFull} }

// refusal is how a connection ends that net/http does not answer. It is an error for the reader.
type refusal struct {
	reason string
	answer []byte // as it stands on the wire
}

func (r *refusal) Error() string { return r.reason }

var (
	noSlot    = &refusal{NoSlot, onWire(overloaded)}
	headsFull = &refusal{HeadsFull, onWire(overloaded)}
)

// turnAway ends a connection that net/http does not know, or does not know any more.
func (s *Server) turnAway(conn net.Conn, r *refusal) {
	s.refused(r.reason)
	select {
	case s.away <- struct{}{}:
		go func() {
			defer func() { <-s.away }()
			defer conn.Close()
			r.tell(conn)
		}()
	default:
		_ = conn.Close()
	}
}

// tell answers what the client has begun to send, and reads on until it leaves: a connection that is closed with
// something unread is reset, and the answer may be lost.
func (r *refusal) tell(conn net.Conn) {
	var unread [512]byte
	_ = conn.SetDeadline(time.Now().Add(turnAwayTime))
	if r == noSlot { // nothing has been read yet
		if _, err := conn.Read(unread[:]); err != nil {
			return
		}
	}
	if _, err := conn.Write(r.answer); err != nil {
		return
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	for {
		if _, err := conn.Read(unread[:]); err != nil {
			return
		}
	}
}

// onWire is a problem as an answer that ends its connection.
func onWire(p problem.Problem) []byte {
	body := p.Body()
	answer := http.Response{
		ProtoMajor: 1, ProtoMinor: 1, StatusCode: p.Status, Header: p.Header(), Close: true,
		ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)),
	}
	var out bytes.Buffer
	if err := answer.Write(&out); err != nil {
		panic(err) // it is written to memory
	}
	return out.Bytes()
}
