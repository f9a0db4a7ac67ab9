package httpapi

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"time"
)

// listener hands on no more connections than there are places. What comes beyond them gets a 503 and the end of its
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
		select {
		case l.server.places <- struct{}{}:
			return newConn(inner, l.server), nil
		default:
			l.server.turnAway(inner, noPlace)
		}
	}
}

const (
	// maxTurnedAway bounds those that are told; more are closed without a word. One costs about 4 KB.
	maxTurnedAway = 1024
	// turnAwayTime bounds how long one of them is listened to.
	turnAwayTime = time.Second
)

// refusal is how a connection ends that net/http does not answer: with this answer, as it stands on the wire.
type refusal []byte

var noPlace, headsFull = onWire(overloaded), onWire(overloaded)

// turnAway ends a connection that net/http does not know, or does not know any more.
func (s *Server) turnAway(conn net.Conn, r *refusal) {
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

// tell answers what the client has begun to send, and reads on until it leaves: a connection that is closed with something
// unread is reset, and the answer may be lost.
func (r *refusal) tell(conn net.Conn) {
	var unread [512]byte
	_ = conn.SetDeadline(time.Now().Add(turnAwayTime))
	if r == noPlace { // nothing has been read yet
		if _, err := conn.Read(unread[:]); err != nil {
			return
		}
	}
	if _, err := conn.Write(*r); err != nil {
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
func onWire(p problem) *refusal {
	recorded := &wireAnswer{header: http.Header{}}
	p.write(recorded)
	answer := http.Response{
		ProtoMajor: 1, ProtoMinor: 1, StatusCode: recorded.status, Header: recorded.header, Close: true,
		ContentLength: int64(recorded.body.Len()), Body: io.NopCloser(&recorded.body),
	}
	var out bytes.Buffer
	if err := answer.Write(&out); err != nil {
		panic(err) // it is written to memory
	}
	wire := refusal(out.Bytes())
	return &wire
}

// wireAnswer is the http.ResponseWriter of an answer without a request.
type wireAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *wireAnswer) Header() http.Header         { return a.header }
func (a *wireAnswer) WriteHeader(status int)      { a.status = status }
func (a *wireAnswer) Write(p []byte) (int, error) { return a.body.Write(p) }
