package rabbit

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"
)

// What AMQP is made of, as bytes: for tests that play the broker.

func frame(kind byte, channel uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{kind}, channel)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(append(b, payload...), 0xCE)
}

// method is the frame of a method; its arguments are bytes already.
func method(channel, class, id uint16, arguments ...[]byte) []byte {
	payload := binary.BigEndian.AppendUint16(u16(class), id)
	return frame(1, channel, append(payload, bytes.Join(arguments, nil)...))
}

func u16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func u64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// short and long are AMQP's strings; a long one is a table, too, when its bytes are fields.
func short(s string) []byte { return append([]byte{byte(len(s))}, s...) }
func long(b []byte) []byte  { return append(u32(uint32(len(b))), b...) }

// field is one of a table.
func field(name string, kind byte, value []byte) []byte {
	return append(append(short(name), kind), value...)
}

// nested is a table with others in it, depth deep.
func nested(depth int) []byte {
	table := []byte{}
	for range depth {
		table = field("in", 'F', long(table))
	}
	return table
}

// array is a table with an array of n elements, wide one that has n itself.
func array(n int) []byte { return field("many", 'A', long(bytes.Repeat([]byte{'V'}, n))) }

func wide(n int) (table []byte) {
	for i := range n {
		table = append(table, field(string(u16(uint16(i))), 'V', nil)...)
	}
	return table
}

// properties is the payload of a content header with every property, for a body of n bytes.
func properties(table []byte, n int) []byte {
	const all = 0xFFFC
	return bytes.Join([][]byte{
		{0, 60, 0, 0}, u64(uint64(n)), u16(all), short("text/plain"), short("gzip"), long(table), {2, 7},
		short("correlation"), short("reply"), short("60000"), short("id-1"), u64(1764196000), short("type"),
		short("user"), short("app"), short("cluster"),
	}, nil)
}

// content is a message's header and body, in one frame each.
func content(channel uint16, table, body []byte) []byte {
	return append(frame(2, channel, properties(table, len(body))), frame(3, channel, body)...)
}

// The broker's side of a greeting, and of its end.
func startFrame() []byte {
	return method(0, 10, 10, []byte{0, 9}, long(nil), long([]byte("PLAIN")), long([]byte("en_US")))
}
func tuneFrame(frameMax uint32) []byte {
	return method(0, 10, 30, u16(2047), u32(frameMax), u16(0))
}
func openOKFrame() []byte { return method(0, 10, 41, short("")) }

func closeFrame(code uint16, text string) []byte {
	return method(0, 10, 50, u16(code), short(text), u16(0), u16(0))
}

// recording is a connection on which a broker was recorded: after each write of the client, the next part can be read.
type recording struct {
	net.Conn
	parts [][]byte
	out   io.Reader

	mu      sync.Mutex
	changed *sync.Cond // signals that written or ended has changed
	written int
	read    int
	ended   bool
}

func recorded(parts ...[]byte) *recording {
	r := &recording{parts: parts, out: bytes.NewReader(nil)}
	r.changed = sync.NewCond(&r.mu)
	return r
}

func (r *recording) Read(p []byte) (int, error) {
	for {
		if n, err := r.out.Read(p); err == nil {
			return n, nil
		}
		r.mu.Lock()
		for r.read == r.written && !r.ended {
			r.changed.Wait()
		}
		if r.ended || r.read == len(r.parts) {
			r.mu.Unlock()
			return 0, io.EOF
		}
		r.out = bytes.NewReader(r.parts[r.read])
		r.read++
		r.mu.Unlock()
	}
}

func (r *recording) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written = min(r.written+1, len(r.parts))
	r.changed.Broadcast()
	return len(p), nil
}

func (r *recording) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	r.changed.Broadcast()
	return nil
}

func (r *recording) SetDeadline(time.Time) error     { return nil }
func (r *recording) SetReadDeadline(time.Time) error { return nil }
