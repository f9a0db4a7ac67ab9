package rabbit

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"testing/iotest"
)

// FuzzFrames holds, for any bytes from a broker: nothing panics; it does not matter in which pieces they come; and
// where they are frames, the same frames come out, but for content headers that the client library refuses.
func FuzzFrames(f *testing.F) {
	good := append(method(1, 60, 60, short("c"), u64(1), []byte{0}, short(""), short("q")),
		content(1, field("n", 'S', long([]byte("v"))), []byte("body"))...)
	f.Add(good, uint16(1))
	f.Add(append(bytes.Clone(good), frame(2, 1, properties(nested(40), 0))...), uint16(7))
	f.Add(append(bytes.Clone(good), frame(2, 1, properties(field("n", 'Z', nil), 3))...), uint16(100))
	f.Add(frame(2, 1, properties(field("n", 'S', long(make([]byte, 5000))), 3)), uint16(600))
	f.Add(good[:len(good)-3], uint16(3))
	f.Fuzz(func(t *testing.T, in []byte, piece uint16) {
		small := func(r io.Reader, n int) []byte {
			f := newFrames(reading{Reader: r})
			f.largest.Store(4096)
			return readFrames(t, f, n)
		}
		out := small(bytes.NewReader(in), 1<<16)
		if again := small(iotest.OneByteReader(bytes.NewReader(in)), max(int(piece), 1)); !bytes.Equal(out, again) {
			t.Fatalf("in other pieces something else came out: %d bytes, and %d", len(out), len(again))
		}
		came, rest := split(in)
		went, _ := split(out)
		if len(rest) == 0 && len(came) != len(went) {
			t.Fatalf("%d frames came, %d went out", len(came), len(went))
		}
		for i := range min(len(came), len(went)) {
			switch {
			case bytes.Equal(came[i], went[i]):
			case came[i][0] != typeHeader:
				t.Fatalf("frame %d was touched, of type %d", i, came[i][0])
			case !bytes.Contains(went[i], []byte(HeaderUnreadable)):
				t.Fatalf("content header %d was touched, and is not marked", i)
			}
		}
	})
}

// split is the frames of a stream, and what is behind the last that is whole.
func split(b []byte) (frames [][]byte, rest []byte) {
	for {
		size, known := sizeOf(b)
		if !known || size > int64(len(b)) {
			return frames, b
		}
		frames, b = append(frames, b[:size]), b[size:]
	}
}

// FuzzContentHeader holds against the client library itself: what comes out of the filter is read by it, unless the
// properties are cut off; and a table that the library reads to its end is not touched.
func FuzzContentHeader(f *testing.F) {
	for _, table := range [][]byte{
		nil, nested(32), nested(33), array(8193), field("n", 'Z', nil), field("n", 'S', u32(1<<20)),
		field("A", 'A', long([]byte("F\x00\x00\x00\x00"))),
		field("D", 'D', []byte{1, 2}), field("x", 'x', u32(1<<31)),
		append(field("n", 'V', nil), field("n", 'V', nil)...),
	} {
		f.Add(properties(table, 0))
	}
	f.Add(properties(nested(40), 0)[:80])
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > frameSize-aroundPayload {
			return
		}
		in := frame(2, 1, payload)
		out := filtered(t, bytes.NewReader(in), 4096)
		if err := refused(t, in, true); err != nil {
			if _, cut := cutOff(payload); !cut || !bytes.Equal(in, out) {
				t.Errorf("it is refused: %v", err)
			}
		}
		if bytes.Equal(in, out) {
			return
		}
		if table, cut := cutOff(payload); cut || checkTable(table, 0) == "" {
			t.Error("it was touched in vain")
		}
	})
}

// cutOff says whether a content header ends before its properties do, and what its table is if not.
func cutOff(payload []byte) (table []byte, cut bool) {
	if len(payload) < fixedSize {
		return nil, true
	}
	flags, rest := flagsOf(payload), payload[fixedSize:]
	for flag := 1 << 15; flag >= 1<<2; flag >>= 1 {
		if int(flags)&flag == 0 {
			continue
		}
		size := 1
		switch flag {
		case hasHeaders:
			if len(rest) < 4 {
				return nil, true
			}
			size = 4 + int(binary.BigEndian.Uint32(rest))
		case 1 << 12, 1 << 11: // delivery mode, priority
		case 1 << 6: // timestamp
			size = 8
		default:
			if len(rest) > 0 {
				size = 1 + int(rest[0])
			}
		}
		if len(rest) < size {
			return nil, true
		}
		if flag == hasHeaders {
			table = rest[4:size]
		}
		rest = rest[size:]
	}
	return table, false
}
