package httpapi

import "math"

// body follows the bytes of one request's body, as far as is needed to see where the next head begins.
type body struct {
	left    int64 // bytes to come: of the body, or of a chunk and the line end behind it
	chunked bool
	size    int64 // of the chunk whose first line has begun
	sized   bool  // its digits are over: what follows on that line does not matter
	last    bool  // it was the last chunk: the trailer follows
	trailer head
}

// newBody is for a body of that length, or a chunked one when it is negative.
func newBody(length int64) body {
	if length >= 0 {
		return body{left: length}
	}
	return body{chunked: true, trailer: head{lines: 1}} // as if a request line had been: the first empty line is its end
}

// take takes what is the body's of p, which is all of it unless the body ends there. What is no chunked body is taken to the
// last byte: net/http does not read on behind it.
func (b *body) take(p []byte) (n int, ended bool) {
	for n < len(p) && !ended {
		switch {
		case b.left > 0:
			k := min(b.left, int64(len(p)-n))
			b.left -= k
			n += int(k)
		case b.last:
			var k int
			k, ended = b.trailer.take(p[n:])
			n += k
		default:
			b.takeSize(p[n])
			n++
		}
		ended = ended || !b.chunked && b.left == 0
	}
	return n, ended
}

// takeSize takes a byte of the line that a chunk begins with.
func (b *body) takeSize(c byte) {
	digit, isDigit := hex(c)
	switch {
	case c == '\n' && b.size == 0:
		b.last = true
	case c == '\n':
		b.left, b.size, b.sized = b.size+int64(len("\r\n")), 0, false
	case b.size > math.MaxInt64>>5:
		b.left = math.MaxInt64 // there is no such chunk
	case isDigit && !b.sized:
		b.size = b.size<<4 | digit
	default:
		b.sized = true
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
