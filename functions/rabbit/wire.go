package rabbit

import (
	"context"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// wirePending bounds the bytes of messages that wait to be written, so that a broker that stops reading costs
	// bounded memory. A single larger message may wait by itself, when no other one is being written.
	wirePending = 2 << 20
	// wirePiece is how much of a batch is written under one deadline: what it bounds is a write that makes no
	// progress, and not how large a message may be on a slow line.
	wirePiece = 128 << 10
	// deadlineEvery is how often the read deadline is moved, at most; the shortest that heartbeats ask for is 1.5 s
	// away.
	deadlineEvery = 100 * time.Millisecond
	// With gatherFrom publishes or more waiting for their confirms, the time from one write to the next is gatherEach
	// for each of them, and at most gatherMost. Fewer and larger batches cost both sides less. For acks that pays: a
	// drain of 8 in flight did a tenth more with it. For publishes it measured alike with and without. The runtime's
	// timers are exact to half a millisecond, which is gatherFrom of gatherEach.
	gatherFrom, gatherEach, gatherMost = 8, time.Millisecond / 16, 2 * time.Millisecond
	// closeFlush bounds how long Close waits for what is still to be written.
	closeFlush = 500 * time.Millisecond
)

// wire is the socket below an AMQP connection. Writes return as soon as they are queued, and one goroutine writes all
// that has queued up meanwhile in few calls: a lone write goes out at once, many become one segment and one system
// call, for the broker too. When many wait for confirms, it lets a moment pass between two writes. Each of these calls
// has a deadline; when it is missed, the wire closes, and with it everything that waits on it.
type wire struct {
	net.Conn
	timeout   time.Duration // of one write
	batchHint atomic.Int64  // publishes that wait for their confirms, or as many as the acks of a consumer are worth
	// when something was last read, Unix nanoseconds, wall clock: it goes on while a process is frozen
	heard atomic.Int64

	mu       sync.Mutex // guards the next six, and the order in which write deadlines are set
	room     *sync.Cond // signals that there is less pending or reserved, or that err is set
	pending  []byte
	reserved int       // bytes that are about to be written
	writing  int       // bytes of the batch that is being written, if they are more than wirePending
	err      error     // once set, nothing more is taken
	closeBy  time.Time // once err is set: when the last write must have ended

	wake chan struct{} // holds one token while there may be something pending
	done chan struct{} // closed when the goroutine has ended and the socket is closed
}

func newWire(conn net.Conn, timeout time.Duration) *wire {
	w := &wire{Conn: conn, timeout: timeout, wake: make(chan struct{}, 1), done: make(chan struct{})}
	w.room = sync.NewCond(&w.mu)
	w.heard.Store(time.Now().UnixNano())
	go w.writeBatches()
	return w
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

// SetReadDeadline moves the deadline, and returns a moment later. The library calls it from its heartbeat's goroutine,
// which it wakes after each frame and each publish without waiting for it: held here, that goroutine runs ten times a
// second and not some ten thousand times, each of which would wake a thread of the runtime too.
func (w *wire) SetReadDeadline(t time.Time) error {
	err := w.Conn.SetReadDeadline(t)
	pause := time.NewTimer(deadlineEvery)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-w.done:
	}
	return err
}

// silence is for how long nothing has been read.
func (w *wire) silence() time.Duration {
	return time.Duration(time.Now().UnixNano() - w.heard.Load())
}

// reserve waits for room for n bytes, and no longer than ctx. It is asked before the library is handed a message: the
// library's own wait for a write knows no context, and holds a lock that every other publish then waits for. What is
// reserved is to be given back when the bytes have been written, or will not be.
func (w *wire) reserve(ctx context.Context, n int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.hasRoom(n) {
		stop := context.AfterFunc(ctx, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.room.Broadcast()
		})
		defer stop()
		for !w.hasRoom(n) && w.err == nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			w.room.Wait()
		}
	}
	w.reserved += n
	return nil
}

// hasRoom says yes to anything when nothing waits: a message may be larger than the bound. The caller holds mu.
func (w *wire) hasRoom(n int) bool {
	waiting := len(w.pending) + w.reserved
	if n > wirePending {
		waiting += w.writing
	}
	return waiting == 0 || waiting+n <= wirePending
}

func (w *wire) unreserve(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reserved -= n
	w.room.Broadcast()
}

// Write queues p and does not block.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	if len(w.pending)+len(p) > cap(w.pending) && w.reserved > wirePending {
		// A large message comes in pieces: grown with each, the buffer would leave five times its size behind as
		// garbage.
		w.pending = slices.Grow(w.pending, w.reserved+w.reserved/256+wirePiece)
	}
	w.pending = append(w.pending, p...)
	w.signal()
	return len(p), nil
}

func (w *wire) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *wire) writeBatches() {
	defer close(w.done)
	defer w.Conn.Close()
	var batch []byte
	var last time.Time
	for range w.wake {
		time.Sleep(time.Until(last.Add(w.gather())))
		// what is about to write may do so first: larger batches cost both sides less, and a lone write waits for
		// nobody
		runtime.Gosched()
		var isLast bool
		batch, isLast = w.take(batch)
		last = time.Now()
		for piece := range slices.Chunk(batch, wirePiece) {
			w.setDeadline()
			if _, err := w.Conn.Write(piece); err != nil {
				w.fail(err)
				return
			}
		}
		if isLast {
			return
		}
		if len(batch) > wirePending {
			w.written()
		}
		if cap(batch) > 2*wirePending { // one large message; the buffers of the usual ones are kept
			batch = nil
		}
	}
}

// gather is how long after the last write the next one may be.
func (w *wire) gather() time.Duration {
	n := w.batchHint.Load()
	if n < gatherFrom {
		return 0
	}
	return min(time.Duration(n)*gatherEach, gatherMost)
}

// take gives what is pending for the buffer of the last batch, and says whether nothing more will come.
func (w *wire) take(last []byte) (batch []byte, isLast bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	batch, w.pending = w.pending, last[:0]
	if len(batch) > wirePending {
		w.writing = len(batch)
	}
	w.room.Broadcast()
	return batch, w.err != nil
}

// written lets the next large message in.
func (w *wire) written() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writing = 0
	w.room.Broadcast()
}

// setDeadline is that of the next write.
func (w *wire) setDeadline() {
	w.mu.Lock()
	defer w.mu.Unlock()
	deadline := w.closeBy
	if w.err == nil {
		deadline = time.Now().Add(w.timeout)
	}
	_ = w.Conn.SetWriteDeadline(deadline)
}

// fail makes err the answer to every Write from now on, and gives what is still pending closeFlush; the first one
// stays.
func (w *wire) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return
	}
	w.err, w.closeBy = err, time.Now().Add(closeFlush)
	_ = w.Conn.SetWriteDeadline(w.closeBy) // for the write that may be under way
	w.room.Broadcast()
}

// Close writes what is pending, within closeFlush, and closes the socket.
func (w *wire) Close() error {
	w.fail(net.ErrClosed)
	w.signal()
	<-w.done
	return nil
}
