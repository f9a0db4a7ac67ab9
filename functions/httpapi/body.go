package httpapi

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"fallback/functions/problem"
)

// intake is one request's body on its way in, and what it takes of a room.
type intake struct {
	room    *room
	taken   int64 // of the room
	writer  http.ResponseWriter
	begin   time.Time
	came    atomic.Int64
	givenUp atomic.Bool
}

// firstStep is the most that a body takes before anything of it has come. Most are smaller, and take what they have.
const firstStep = 16 << 10

// What can be wrong with a body.
var (
	errBodyTooLarge = errors.New("the body is over the limit")
	errNoRoom       = errors.New("there is no room for the body")
)

func newIntake(w http.ResponseWriter, room *room, begin time.Time) *intake {
	return &intake{room: room, writer: w, begin: begin}
}

// read reads the body to its end, of limit bytes at most: the length that a client states is not trusted to be the
// length that it sends, and there may be none. What is taken of the room grows with what has come, and is up to four
// times as much. The error is errBodyTooLarge, errNoRoom, or that of the connection.
func (b *intake) read(r *http.Request, limit int64) ([]byte, error) {
	longest := limit
	if r.ContentLength >= 0 {
		longest = r.ContentLength
	}
	if longest > limit {
		return nil, errBodyTooLarge
	}
	if longest == 0 || r.Body == nil {
		return nil, nil
	}
	// A body that has come whole with its head cannot trickle.
	if c := connOf(r); c == nil || r.ContentLength < 0 || int64(len(c.rest)) < longest {
		b.arrives(c)
		defer b.arrived(c)
	}
	var got []byte
	for {
		if len(got) == cap(got) {
			if int64(len(got)) == longest {
				return got, b.atEnd(r)
			}
			var err error
			if got, err = b.grow(got, longest); err != nil {
				return nil, err
			}
		}
		n, err := r.Body.Read(got[len(got):cap(got)])
		got = got[:len(got)+n]
		b.came.Store(int64(len(got)))
		switch {
		case int64(len(got)) == longest && r.ContentLength >= 0:
			return got, nil
		case err == io.EOF && r.ContentLength >= 0:
			return nil, io.ErrUnexpectedEOF
		case err == io.EOF:
			return got, nil
		case err != nil:
			return nil, err
		}
	}
}

// atEnd says what is wrong when longest bytes have come and no length was stated: one more would be too many.
func (b *intake) atEnd(r *http.Request) error {
	switch n, err := io.ReadFull(r.Body, make([]byte, 1)); {
	case n > 0:
		return errBodyTooLarge
	case err != io.EOF:
		return err
	}
	return nil
}

// grow moves what has come to about four times the space, the last time to longest itself. What is left behind is at
// most a quarter of that, and garbage at once: it is not counted.
func (b *intake) grow(got []byte, longest int64) ([]byte, error) {
	old, next := int64(cap(got)), longest
	for quarter := (next + 3) / 4; quarter > old && next > firstStep; quarter = (next + 3) / 4 {
		next = quarter
	}
	if !b.take(next - old) {
		return nil, errNoRoom
	}
	return append(make([]byte, 0, next), got...), nil
}

func (b *intake) take(n int64) bool {
	if !b.room.take(n) {
		return false
	}
	b.taken += n
	return true
}

// moveOut counts the body in the outer room only.
func (b *intake) moveOut() {
	b.room.used.Add(-b.taken)
	b.room = b.room.within
}

// release gives back what is taken.
func (b *intake) release() {
	b.room.release(b.taken)
	b.taken = 0
}

func (b *intake) arrives(c *conn) {
	if c != nil {
		c.arriving.Store(b)
	}
	all := b.room.outermost()
	all.mu.Lock()
	defer all.mu.Unlock()
	all.arriving[b] = true
}

func (b *intake) arrived(c *conn) {
	if c != nil {
		c.arriving.Store(nil)
	}
	all := b.room.outermost()
	all.mu.Lock()
	defer all.mu.Unlock()
	delete(all.arriving, b)
}

func (b *intake) trickles(now time.Time) bool {
	age := now.Sub(b.begin)
	return age >= trickleAfter && float64(b.came.Load()) < age.Seconds()*trickleRate
}

// giveUp ends the wait for the rest: the read of it fails at once. It is called while the room knows the body, so that
// it reaches no later request of the connection.
func (b *intake) giveUp() {
	b.givenUp.Store(true)
	_ = http.NewResponseController(b.writer).SetReadDeadline(time.Unix(1, 0))
}

// unreadable is the answer to a request whose body could not be read.
func (d *Door) unreadable(b *intake, err error) *problem.Problem {
	switch {
	case b.givenUp.Load(): // for others: it had more time
		return &overloaded
	case errors.Is(err, errBodyTooLarge):
		return bodyTooLarge(d.options.Limits.Body)
	case errors.Is(err, errNoRoom), errors.Is(err, headsFull):
		return &overloaded
	case errors.As(err, new(*refusal)): // of the trailer
		return headerTooLarge(d.options.Limits.Header)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &bodyTooSlow
	default:
		return &unreadableBody
	}
}
