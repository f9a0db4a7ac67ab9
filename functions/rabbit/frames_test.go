package rabbit

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/iotest"

	amqp "github.com/rabbitmq/amqp091-go"
)

// filtered is what comes out of the filter, read n bytes at a time.
func filtered(t testing.TB, in io.Reader, n int) []byte {
	t.Helper()
	return readFrames(t, newFrames(reading{Reader: in}), n)
}

func readFrames(t testing.TB, f *frames, n int) []byte {
	t.Helper()
	var out []byte
	p := make([]byte, n)
	for {
		n, err := f.Read(p)
		out = append(out, p[:n]...)
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF: // the second in the middle of a content header
			return out
		default:
			t.Fatal(err)
		}
	}
}

// reading is a connection that is only read.
type reading struct {
	net.Conn
	io.Reader
}

func (r reading) Read(p []byte) (int, error) { return r.Reader.Read(p) }

// refused is why the client library closes a connection over what comes from a broker after the greeting; nil when it
// does not.
func refused(t testing.TB, stream []byte, filter bool) error {
	t.Helper()
	const bye = 320
	recording := recorded(startFrame(), tuneFrame(frameSize), nil, openOKFrame(),
		append(bytes.Clone(stream), closeFrame(bye, "bye")...))
	var conn net.Conn = recording
	if filter {
		conn = newFrames(recording)
	}
	library, err := amqp.Open(conn, amqp.Config{SASL: []amqp.Authentication{&amqp.PlainAuth{}}, FrameSize: frameSize,
		Vhost: "/"})
	if err != nil {
		t.Fatal(err)
	}
	closes := library.NotifyClose(make(chan *amqp.Error, 1))
	_, _ = recording.Write(nil) // the stream may come
	if err := <-closes; err == nil || err.Code != bye {
		return fmt.Errorf("it was closed with %w", err)
	}
	return nil
}

// TestUnreadableHeaders holds for each reason for which the client library refuses a content header that what comes in
// its place is read, with all properties, and says why; and that what is just within the limits, or broken elsewhere,
// is not touched.
func TestUnreadableHeaders(t *testing.T) {
	t.Parallel()
	ours := field(HeaderMetadata, 'S', long([]byte("{}")))
	for _, row := range []struct {
		name  string
		table []byte
		why   string // "": it is not touched
		kept  bool
	}{
		{"none", nil, "", false},
		{"ours", ours, "", false},
		{"every type", bytes.Join([][]byte{
			field("t", 't', []byte{1}), field("b", 'b', []byte{1}), field("B", 'B', []byte{1}), field("s", 's', u16(1)),
			field("u", 'u', u16(1)),
			field("I", 'I', u32(1)), field("i", 'i', u32(1)), field("l", 'l', u64(1)), field("f", 'f', u32(1)),
			field("d", 'd', u64(1)),
			field("D", 'D', []byte{1, 0, 0, 0, 1}), field("T", 'T', u64(1)), field("V", 'V', nil),
			field("S", 'S', long([]byte("s"))),
			field("x", 'x', long([]byte("x"))), field("A", 'A', long([]byte("t\x01V"))), field("F", 'F', long(ours)),
		}, nil), "", false},
		{"nested 32", nested(32), "", false},
		{"nested 33", nested(33), tooDeep, true},
		{"nested 40", nested(40), tooDeep, true},
		{"arrays nested 32", field("a", 'A', long(arrays(31))), "", false},
		{"arrays nested 33", field("a", 'A', long(arrays(32))), tooDeep, true},
		{"array of 8,192", array(8192), "", false},
		{"array of 8,193", array(8193), tooMany, true},
		{"array of 9,000", array(9000), tooMany, true},
		{"table of 8,192", wide(8192), "", false},
		{"table of 8,193", wide(8193), tooMany, true},
		{"a table in a table of 8,193", field("in", 'F', long(wide(8193))), tooMany, true},
		{"a type that is none", append(ours, field("n", 'Z', []byte("what"))...), malformed, true},
		{"a name that does not end", append(ours, 200, 'n'), malformed, true},
		{"a name and no type", append(ours, short("n")...), malformed, true},
		{"a string that does not end", append(ours, field("n", 'S', u32(1000))...), malformed, true},
		{"bytes of a negative length", append(ours, field("n", 'x', u32(0xFFFFFFFF))...), malformed, true},
		{"an array of 2 GiB", append(ours, field("n", 'A', u32(1<<31))...), malformed, true},
		{"a frame that is full", field("n", 'S', long(make([]byte, fullTable-7))), "", false},
		{"larger than a frame", field("n", 'S', long(make([]byte, fullTable-6))), tooLarge + notKept, false},
		{"much larger", field("n", 'S', long(make([]byte, 3<<20))), tooLarge + notKept, false},
		{"nested, and too large to be kept", append(nested(40), field("n", 'S', long(make([]byte, 125<<10)))...),
			tooDeep + notKept, false},
		{"nested, and larger than a frame", append(nested(40), field("n", 'S', long(make([]byte, 1<<20)))...),
			tooLarge + notKept, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			header := frame(2, 1, properties(row.table, 0))
			stream := bytes.Join([][]byte{heartbeatFrame(), header, heartbeatFrame()}, nil)
			out := filtered(t, bytes.NewReader(stream), 4096)
			if row.why == "" {
				if !bytes.Equal(out, stream) {
					t.Errorf("it was touched: %d bytes came, %d went out", len(stream), len(out))
				}
				if err := refused(t, stream, false); err != nil {
					t.Errorf("the library refuses it: %v", err)
				}
				return
			}
			if err := refused(t, stream, false); err == nil {
				t.Error("the library takes it without the filter")
			}
			if err := refused(t, stream, true); err != nil {
				t.Errorf("the library refuses it with the filter, too: %v", err)
			}
			table := field(HeaderUnreadable, 'S', long([]byte(row.why)))
			if row.kept {
				table = append(table, field(HeaderUnread, 'x', long(row.table))...)
			}
			want := bytes.Join([][]byte{heartbeatFrame(), frame(2, 1, properties(table, 0)), heartbeatFrame()}, nil)
			if !bytes.Equal(out, want) {
				t.Errorf("got  %.300q\nwant %.300q", out, want)
			}
		})
	}
}

// arrays is the elements of an array, with others in it, depth deep.
func arrays(depth int) (elements []byte) {
	for range depth {
		elements = append([]byte{'A'}, long(elements)...)
	}
	return elements
}

// fullTable is the bytes of a table with which a content header with every property fills a frame.
var fullTable = frameSize - aroundPayload - len(properties(nil, 0))

func heartbeatFrame() []byte { return frame(8, 0, nil) }

// TestMalformedContentHeader holds that a content header which no other table would cure passes as it is, for the
// library to refuse.
func TestMalformedContentHeader(t *testing.T) {
	t.Parallel()
	whole := properties(nested(40), 0)
	large := properties(field("n", 'S', long(make([]byte, 1<<20))), 0)
	endless := frame(2, 1, whole)
	endless[len(endless)-1] = 0
	overrun := bytes.Clone(large)
	copy(overrun[fixedSize+11+5:], u32(1<<30))
	for name, in := range map[string][]byte{
		"nothing in it":                 frame(2, 1, nil),
		"cut in the fixed part":         frame(2, 1, whole[:13]),
		"cut in the content type":       frame(2, 1, whole[:fixedSize+3]),
		"cut in the table's length":     frame(2, 1, whole[:fixedSize+11+5+2]),
		"cut in the table":              frame(2, 1, whole[:100]),
		"cut behind the table":          frame(2, 1, whole[:len(whole)-40]),
		"cut before the last property":  frame(2, 1, whole[:len(whole)-1]),
		"large, cut in the table":       frame(2, 1, large[:1<<19]),
		"large, and a longer table":     frame(2, 1, overrun),
		"large, and much behind it":     frame(2, 1, append(bytes.Clone(large), make([]byte, longestAfter+1)...)),
		"large, and no table":           frame(2, 1, append(bytes.Clone(large[:fixedSize-2]), make([]byte, 1<<20)...)),
		"a frame of a type that is not": frame(77, 1, whole),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stream := append(bytes.Clone(in), frame(8, 0, nil)...)
			for _, n := range []int{1, 7, 4096, 1 << 21} {
				if out := filtered(t, bytes.NewReader(stream), n); !bytes.Equal(out, stream) {
					t.Errorf("read %d at a time it was touched: %d bytes came, %d went out", n, len(stream), len(out))
				}
			}
		})
	}
	if out := filtered(t, bytes.NewReader(endless), 4096); bytes.Equal(out, endless) || out[len(out)-1] != 0 {
		t.Errorf("of a frame without its end, %d bytes of %d came out", len(out), len(endless))
	}
}

// TestFramesInPieces holds that it does not matter in which pieces bytes come, and in which they are read.
func TestFramesInPieces(t *testing.T) {
	t.Parallel()
	var stream []byte
	for i, table := range [][]byte{nil, nested(40), array(100), array(9000),
		field("n", 'S', long(make([]byte, 200<<10))), nested(33), nested(3)} {
		stream = append(stream, method(1, 60, 60, short("consumer"), u64(uint64(i)), []byte{0}, short(""),
			short("q"))...)
		stream = append(stream, content(1, table, bytes.Repeat([]byte{byte(i), 2}, i*3000))...)
	}
	want := filtered(t, bytes.NewReader(stream), 1<<21)
	if n := bytes.Count(want, []byte(HeaderUnreadable+"S")); n != 4 {
		t.Fatalf("%d were marked, want 4", n)
	}
	for _, n := range []int{1, 2, 6, 7, 8, 100, 4096, 64 << 10} {
		if got := filtered(t, iotest.OneByteReader(bytes.NewReader(stream)), n); !bytes.Equal(got, want) {
			t.Errorf("a byte comes at a time, %d are read: something else came out", n)
		}
		if got := filtered(t, iotest.HalfReader(bytes.NewReader(stream)), n); !bytes.Equal(got, want) {
			t.Errorf("half comes at a time, %d are read: something else came out", n)
		}
	}
}

// TestSmallFrames holds that what comes in the place of a content header fits where the broker wants smaller frames.
func TestSmallFrames(t *testing.T) {
	t.Parallel()
	f := newFrames(reading{Reader: bytes.NewReader(frame(2, 1, properties(nested(300), 0)))})
	f.largest.Store(4096)
	out, err := io.ReadAll(f)
	if err != nil || len(out) > 4096 || !bytes.Contains(out, []byte(tooDeep+notKept)) {
		t.Errorf("%d bytes came out, %v: %.200q", len(out), err, out)
	}
}
