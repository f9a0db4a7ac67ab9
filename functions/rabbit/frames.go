package rabbit

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync/atomic"
)

// A frame is its head, a payload, and one byte that ends it. The head is the frame's type (1 byte), its channel (2),
// and the size of the payload (4).
const (
	headSize      = 7
	aroundPayload = headSize + 1
	// the type of a content header: a message's properties, between the method that brings it and its body
	typeHeader byte = 2
)

// frames is what the client library reads from: the broker's frames as they come, but for content headers that the
// library cannot read. It would close the connection over one, and the broker would send that message to the next
// connection again: a single message stopped a queue for good. In its place comes one that it can read, see [mend].
//
// It reads into the library's own buffer and looks at the frames there, so that bodies stream through. Only the first
// part of a content header that has not come whole is copied, and read again when more is there.
type frames struct {
	net.Conn
	// largest is how many bytes a frame may have for the library, which refuses others. The dialer sets it when the
	// library has agreed on it with the broker.
	largest atomic.Int64

	// The rest belongs to the goroutine that reads.

	out []byte // has been looked at, and is to be read next
	raw []byte // has come, and is to be looked at
	// raw begins with a content header that has not passed: it is not whole, or the library cannot read it
	held    bool
	head    [headSize]byte // of a frame of another type, as much of it as has come
	headLen int
	rest    int64  // bytes of the present frame that are still to come, and pass
	whole   []byte // memory for out
	kept    []byte // memory for raw
}

func newFrames(conn net.Conn) *frames {
	f := &frames{Conn: conn}
	f.largest.Store(frameSize)
	return f
}

func (f *frames) Read(p []byte) (int, error) {
	for len(p) > 0 {
		switch {
		case len(f.out) > 0:
			n := copy(p, f.out)
			f.out = f.out[n:]
			return n, nil
		case f.held && f.mustTakeOut(len(p)):
			if err := f.takeOut(); err != nil {
				return 0, err
			}
		default:
			n, err := f.fill(p)
			if n = f.pass(p[:n]); n > 0 || err != nil {
				return n, err
			}
		}
	}
	return 0, nil
}

// fill reads what is to be looked at. Of a content header that is not whole, the first part is there already.
func (f *frames) fill(p []byte) (int, error) {
	n, more := copy(p, f.raw), f.held
	f.raw, f.held = f.raw[n:], false
	if n == len(p) || n > 0 && !more {
		return n, nil
	}
	m, err := f.Conn.Read(p[n:])
	return n + m, err
}

// pass goes from frame to frame, and says how many bytes of p may be read. The others are kept.
func (f *frames) pass(p []byte) int {
	at := 0
	for at < len(p) {
		switch {
		case f.rest > 0:
			n := min(f.rest, int64(len(p)-at))
			f.rest -= n
			at += int(n)
		case f.headLen == 0 && p[at] == typeHeader:
			size, known := sizeOf(p[at:])
			if !known || size > int64(len(p)-at) || size > f.largest.Load() || !mayPass(p[at:at+int(size)]) {
				f.hold(p[at:])
				return at
			}
			at += int(size)
		default:
			n := copy(f.head[f.headLen:], p[at:])
			at += n
			if f.headLen += n; f.headLen == headSize {
				size, _ := sizeOf(f.head[:])
				f.rest, f.headLen = size-headSize, 0
			}
		}
	}
	return at
}

// sizeOf is the size of a frame, head and end included, when its head is there.
func sizeOf(frame []byte) (size int64, known bool) {
	if len(frame) < headSize {
		return 0, false
	}
	return int64(binary.BigEndian.Uint32(frame[3:])) + aroundPayload, true
}

// hold keeps what begins with a content header that does not pass yet.
func (f *frames) hold(p []byte) {
	f.held = true
	if len(f.raw) > 0 {
		f.raw = slices.Concat(p, f.raw)
		return
	}
	f.kept = append(f.kept[:0], p...)
	f.raw = f.kept
}

// mustTakeOut says whether the header that is held must be copied: it is whole, and so the library cannot read it, or p
// (n bytes) is too small to look at it there.
func (f *frames) mustTakeOut(n int) bool {
	size, known := sizeOf(f.raw)
	if !known {
		return n < headSize
	}
	return size <= int64(len(f.raw)) || size > int64(n) || size > f.largest.Load()
}

// takeOut reads the content header that is held, and puts it, or what comes in its place, into out.
func (f *frames) takeOut() error {
	f.held = false
	if err := f.take(headSize); err != nil {
		return err
	}
	size, _ := sizeOf(f.whole)
	if size > f.largest.Load() {
		return f.takeOutLarge(size - aroundPayload)
	}
	if err := f.take(int(size) - headSize); err != nil {
		return err
	}
	f.out = mend(f.whole, int(f.largest.Load()))
	f.whole = f.whole[:0]
	return nil
}

// takeOutLarge is for one that is larger than the library takes. Its header table is left out, however large; where
// there is none, or no end to what follows it, it passes as it is.
func (f *frames) takeOutLarge(payload int64) error {
	if err := f.take(int(min(payload, tableWithin))); err != nil {
		return err
	}
	here := int64(len(f.whole) - headSize)
	table, length, found := findTable(f.whole[headSize:])
	after := payload - int64(table) - length
	if !found || after < 0 || after > longestAfter || here > int64(table)+length {
		f.out, f.rest = f.whole, payload-here+1
		f.whole = f.whole[:0]
		return nil
	}
	if _, err := io.CopyN(io.Discard, unseen{f}, int64(table)+length-here); err != nil {
		return err
	}
	f.whole = f.whole[:headSize+table]
	if err := f.take(int(after) + 1); err != nil {
		return err
	}
	before, rest := f.whole[:headSize+table], f.whole[headSize+table:]
	f.out = withMark(before, rest[:after], rest[after], tooLarge+notKept, nil)
	f.whole = f.whole[:0]
	return nil
}

// take appends the next n bytes to whole.
func (f *frames) take(n int) error {
	at := len(f.whole)
	f.whole = slices.Grow(f.whole, n)[:at+n]
	_, err := io.ReadFull(unseen{f}, f.whole[at:])
	return err
}

// unseen reads what has not been looked at.
type unseen struct{ *frames }

func (u unseen) Read(p []byte) (int, error) {
	if len(u.raw) == 0 {
		return u.Conn.Read(p)
	}
	n := copy(p, u.raw)
	u.raw = u.raw[n:]
	return n, nil
}
