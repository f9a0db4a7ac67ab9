package httpapi

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
)

// streams are what clients send over one connection: requests one after the other, with all that a head or a body may
// look like at its end.
var streams = []string{
	"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET / HTTP/1.1\nHost: h\n\nGET / HTTP/1.1\r\nHost: h\r\n\n",
	"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbodyGET / HTTP/1.1\r\nHost: h\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n\n\n\n\n\r\nPOST / HTTP/1.1\r\nHost: " +
		"h\r\nContent-Length: 1\r\n\r\nb",
	"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: " +
		"chunked\r\n\r\n4\r\nbody\r\nA;x=1\r\n0\r\n\r\n56789\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n1\r\nb\r\n0\r\nX: 0\r\n\r\nGET / " +
		"HTTP/1.1\r\nHost: h\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n000\r\nX: a\r\n \r\n\r\nGET / " +
		"HTTP/1.1\r\nHost: h\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\nb",
	"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\nX: y\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: h\r\nX: folded\r\n \r\n\t\r\nY: z\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
	"GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n\r\nGET / " +
		"HTTP/1.0\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
	"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
	// net/http looks for two line ends of two bytes
	"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}

// pieces is a connection over which a stream comes in pieces of a size, each in a read of its own.
type pieces struct {
	net.Conn
	left []byte
	size int
}

func (p *pieces) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }

func (p *pieces) Read(into []byte) (int, error) {
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	n := copy(into, p.left[:min(p.size, len(p.left))])
	p.left = p.left[n:]
	return n, nil
}

// readAsServer reads the next request as net/http's server does, which passes over line ends behind a POST.
func readAsServer(in *bufio.Reader, last *http.Request) (*http.Request, error) {
	if last != nil && last.Method == http.MethodPost {
		peek, _ := in.Peek(4)
		_, _ = in.Discard(len(peek) - len(bytes.TrimLeft(peek, "\r\n")))
	}
	return http.ReadRequest(in)
}

// FuzzConn holds that a head ends for us where it ends for net/http, and a body too, however the bytes come: when
// net/http has read one, there is nothing of the next one in its buffer, or a byte that is counted.
func FuzzConn(f *testing.F) {
	for _, s := range streams {
		for _, size := range []int{1, 2, 7, 4096} {
			f.Add([]byte(s), size)
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, size int) {
		if len(stream) > 64<<10 || size < 1 {
			return
		}
		from := &pieces{left: bytes.Clone(stream), size: size}
		c := newConn(from, newServer(nil, Bounds{Heads: 1 << 40}, 1<<30, slog.New(slog.DiscardHandler)))
		in := bufio.NewReaderSize(c, bufferSize)
		var r *http.Request
		for {
			before := len(from.left) + len(c.rest)
			var err error
			if r, err = readAsServer(in, r); err != nil {
				return // and net/http ends the connection
			}
			what := fmt.Sprintf("%d bytes from the end, in pieces of %d: %q", before, size, stream)
			if n := in.Buffered(); n > 0 {
				t.Fatalf("behind a head net/http has %d bytes, %s", n, what)
			}
			if c.head != (head{}) || c.stage.Load() != busy {
				t.Fatalf("net/http has read a head, and we have not: %+v, %s", c.head, what)
			}
			c.begin(r)
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			if n := in.Buffered(); n > 1 || n != c.head.bytes {
				t.Fatalf("behind a body net/http has %d bytes, %s", n, what)
			}
			if c.inBody {
				t.Fatalf("net/http has read a body, and we have not: %+v, %s", c.framing, what)
			}
			c.idle()
			if held := c.server.heads.used.Load(); held != 0 || c.charged.Load() != 0 || c.cost != c.line+c.head.cost() {
				t.Fatalf("when all is answered, %d is held, and %d of the account, %s", c.charged.Load(), held, what)
			}
		}
	})
}

// TestStreams holds that the fuzz test's own streams are read to their ends: else it would compare nothing.
func TestStreams(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		stream   int
		requests int
	}{{0, 1}, {1, 2}, {2, 2}, {3, 2}, {4, 2}, {5, 2}, {6, 2}, {9, 2}, {10, 3}} {
		from := &pieces{left: []byte(streams[row.stream]), size: 3}
		c := newConn(from, newServer(nil, ServerBounds, 1<<20, slog.New(slog.DiscardHandler)))
		in := bufio.NewReader(c)
		got := 0
		for r, err := readAsServer(in, nil); err == nil; r, err = readAsServer(in, r) {
			c.begin(r)
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				break
			}
			c.idle()
			got++
		}
		if got != row.requests {
			t.Errorf("got %d requests of %q, want %d", got, streams[row.stream], row.requests)
		}
	}
}

// TestCountingAllocatesNothing holds that what is on every request's way makes no garbage.
func TestCountingAllocatesNothing(t *testing.T) {
	stream := []byte("POST /fallback HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X-Header: of some length\r\n", 20) +
		"Content-Length: 4\r\n\r\nbody")
	from := &pieces{size: bufferSize}
	c := newConn(from, newServer(nil, ServerBounds, 1<<20, slog.New(slog.DiscardHandler)))
	r := &http.Request{ContentLength: 4, Body: io.NopCloser(from)}
	into := make([]byte, bufferSize)
	if n := testing.AllocsPerRun(100, func() {
		from.left = stream
		_, _ = c.Read(into)
		c.begin(r)
		_, _ = c.Read(into)
		c.idle()
	}); n > 0 {
		t.Errorf("%v allocations a request", n)
	}
	if c.charged.Load() != 0 || len(from.left) > 0 {
		t.Errorf("%d held, %d bytes left", c.charged.Load(), len(from.left))
	}
}

func BenchmarkConn(b *testing.B) {
	stream := []byte("POST /fallback HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X-Header: of some length\r\n", 20) +
		"Content-Length: 256\r\n\r\n" + strings.Repeat("b", 256))
	from := &pieces{size: bufferSize}
	c := newConn(from, newServer(nil, ServerBounds, 1<<20, slog.New(slog.DiscardHandler)))
	r := &http.Request{ContentLength: 256, Body: io.NopCloser(from)}
	into := make([]byte, bufferSize)
	for b.Loop() {
		from.left = stream
		_, _ = c.Read(into)
		c.begin(r)
		_, _ = c.Read(into)
		c.idle()
	}
}
