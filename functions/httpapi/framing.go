package httpapi

import "math"

// framing follows the bytes of one request's body, as far as is needed to see where the next head begins.
type framing struct {
	left    int64 // bytes to come: of the body, or of a chunk and the line end behind it
	chunked bool
	size    int64 // of the chunk whose first line has begun
	sized   bool  // its digits are over: what follows on that line does not matter
	last    bool  // it was the last chunk: the trailer follows
	trailer head
}

// newFraming is for a body of that length, or a chunked one when it is negative.
func newFraming(length int64) framing {
	if length >= 0 {
		return framing{left: length}
	}
	// as if there had been a request line: the first empty line is its end
	return framing{chunked: true, trailer: head{lines: 1}}
}

// take takes what is the body's of p, which is all of it unless the body ends there. What is no chunked body is taken
// to the last byte: net/http does not read on behind it.
func (f *framing) take(p []byte) (n int, ended bool) {
	for n < len(p) && !ended {
		switch {
		case f.left > 0:
			k := min(f.left, int64(len(p)-n))
			f.left -= k
			n += int(k)
		case f.last:
			var k int
			k, ended = f.trailer.take(p[n:])
			n += k
		default:
			f.takeSize(p[n])
			n++
		}
		ended = ended || !f.chunked && f.left == 0
	}
	return n, ended
}

// takeSize takes a byte of the line that a chunk begins with.
func (f *framing) takeSize(c byte) {
	digit, isDigit := hex(c)
	switch {
	case c == '\n' && f.size == 0:
		f.last = true
	case c == '\n':
		f.left, f.size, f.sized = f.size+int64(len("\r\n")), 0, false
	case f.size > math.MaxInt64>>5:
		f.left = math.MaxInt64 // there is no such chunk
	case isDigit && !f.sized:
		f.size = f.size<<4 | digit
	default:
		f.sized = true
	}
}

func hex(c byte) (digit int64, ok bool) {
	switch {
	case '0' <= c && c <= '9':
		return int64(c - '0'), true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int64(c|0x20-'a') + 10, true
	}
	return 0, false
}
