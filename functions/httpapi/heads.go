package httpapi

import (
	"bytes"
	"sync/atomic"
)

// maxFields bounds the lines of one head behind its request line. net/http has no such bound, and each becomes an
// entry of a map: 60 heads of 255 KB, all of them tiny fields, took more than 200 MB.
const maxFields = 512

// What a head takes of the account. A byte of it may be as many in the message, in JSON; before that, net/http has
// copies of a long line. The shortest field was measured with 72 bytes.
const (
	byteCost  = 6
	fieldCost = 128
)

// freeCost is what each head may take without the account, because its slot has room for that: most requests, and
// whoever asks for the server's health, are served when strangers' large heads have filled the account.
const freeCost = 8 << 10

// head follows the bytes of one request's head, from the empty lines that may stand before its request line to the
// empty line at its end. It ends a head where net/http does, or net/http does not take it.
type head struct {
	bytes int
	lines int // whole ones, without empty ones
	line  int // bytes of the line that has begun
	cr    bool
}

// take takes what is the head's of p, which is all of it unless the head ends there.
func (h *head) take(p []byte) (n int, ended bool) {
	for n < len(p) && !ended {
		i := bytes.IndexByte(p[n:], '\n')
		if i < 0 {
			h.cr = h.line == 0 && p[n] == '\r'
			h.line += len(p) - n
			n = len(p)
			break
		}
		empty := h.line+i == 0 || h.line+i == 1 && (h.cr || i == 1 && p[n] == '\r')
		switch {
		case !empty:
			h.lines++
		case h.lines > 0:
			ended = true
		}
		n += i + 1
		h.line, h.cr = 0, false
	}
	h.bytes += n
	return n, ended
}

// fields are the lines behind the request line.
func (h *head) fields() int { return max(0, h.lines-1) }

// cost is what the head takes in memory at the most.
func (h *head) cost() int64 { return byteCost*int64(h.bytes) + fieldCost*int64(h.lines) }

// account bounds what the heads that are being read or answered may take together, beyond freeCost of each: a parsed
// head stays in memory until its request is answered.
type account struct {
	most int64
	used atomic.Int64
}

// hold takes some, if there is as much.
func (a *account) hold(cost int64) bool {
	if a.used.Add(cost) <= a.most {
		return true
	}
	a.add(-cost)
	return false
}

// add takes some in any case, or, below 0, frees some.
func (a *account) add(cost int64) { a.used.Add(cost) }
