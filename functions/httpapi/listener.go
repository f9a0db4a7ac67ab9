package httpapi

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"time"
)

// bounded is a listener that hands on no more connections than there are places. What comes beyond them gets a 503 and
// the end of its connection: left in the system's backlog, it would be answered late, or never. (netutil.LimitListener
// does that, and it wraps connections, which takes from net/http the half-close that keeps a refusal from being lost.)
type bounded struct {
	net.Listener
	places chan struct{} // holds one token for each connection that was handed on
	away   chan struct{} // and for each that is being turned away
}

const (
	// maxTurnedAway bounds those that are told; more are closed without a word. One costs about 4 KB.
	maxTurnedAway = 1024
	// turnAwayTime bounds how long one of them is listened to.
	turnAwayTime = time.Second
)

func newBounded(ln net.Listener, places chan struct{}) bounded {
	return bounded{ln, places, make(chan struct{}, maxTurnedAway)}
}

func (b bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.places <- struct{}{}:
			return conn, nil
		default:
			b.turnAway(conn)
		}
	}
}

func (b bounded) turnAway(conn net.Conn) {
	select {
	case b.away <- struct{}{}:
		go func() {
			defer func() { <-b.away }()
			defer conn.Close()
			refuse(conn)
		}()
	default:
		_ = conn.Close()
	}
}

// overloadedAnswer is the problem as it stands on the wire.
var overloadedAnswer = func() []byte {
	recorded := &wireAnswer{header: http.Header{}}
	overloaded.write(recorded)
	answer := http.Response{
		ProtoMajor: 1, ProtoMinor: 1, StatusCode: recorded.status, Header: recorded.header, Close: true,
		ContentLength: int64(recorded.body.Len()), Body: io.NopCloser(&recorded.body),
	}
	var out bytes.Buffer
	if err := answer.Write(&out); err != nil {
		panic(err) // it is written to memory
	}
	return out.Bytes()
}()

// wireAnswer is the http.ResponseWriter of an answer without a request.
type wireAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *wireAnswer) Header() http.Header         { return a.header }
func (a *wireAnswer) WriteHeader(status int)      { a.status = status }
func (a *wireAnswer) Write(p []byte) (int, error) { return a.body.Write(p) }

// refuse answers what the client has begun to send, and reads on until it leaves: a connection that is closed with
// something unread is reset, and the answer may be lost.
func refuse(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(turnAwayTime))
	if _, err := conn.Read(make([]byte, 512)); err != nil {
		return
	}
	if _, err := conn.Write(overloadedAnswer); err != nil {
		return
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, conn)
}
