package rabbit

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestWireOrder holds that what many write at the same time arrives whole: each write in one piece, those of one writer
// in their order, and the last before Close returns.
func TestWireOrder(t *testing.T) {
	t.Parallel()
	const writers, writes = 16, 400
	near, far := loopback(t)
	w := newWire(near, 10*time.Second)

	read := make(chan error, 1)
	go func() { read <- readRecords(far, writers, writes) }()
	var work sync.WaitGroup
	for writer := range writers {
		work.Go(func() {
			for i := range writes {
				if _, err := w.Write(record(writer, i)); err != nil {
					t.Errorf("write %d of writer %d: %v", i, writer, err)
					return
				}
			}
		})
	}
	work.Wait()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := <-read; err != nil {
		t.Error(err)
	}
}

// record is length, writer, number, and a filling that belongs to both.
func record(writer, number int) []byte {
	filling := bytes.Repeat([]byte{byte(writer*31 + number)}, (writer*977+number*131)%3000)
	b := binary.BigEndian.AppendUint32(nil, uint32(len(filling)))
	b = binary.BigEndian.AppendUint32(b, uint32(writer))
	b = binary.BigEndian.AppendUint32(b, uint32(number))
	return append(b, filling...)
}

func readRecords(in io.Reader, writers, writes int) error {
	next := make([]int, writers)
	var header [12]byte
	for {
		if _, err := io.ReadFull(in, header[:]); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		filling := make([]byte, binary.BigEndian.Uint32(header[:]))
		if _, err := io.ReadFull(in, filling); err != nil {
			return err
		}
		writer, number := int(binary.BigEndian.Uint32(header[4:])), int(binary.BigEndian.Uint32(header[8:]))
		if writer >= writers || number != next[writer] ||
			!bytes.Equal(append(header[:], filling...), record(writer, number)) {
			return fmt.Errorf("record %d of writer %d with %d bytes is not the next one", number, writer, len(filling))
		}
		next[writer]++
	}
	for writer, n := range next {
		if n != writes {
			return fmt.Errorf("%d records of writer %d arrived, want %d", n, writer, writes)
		}
	}
	return nil
}

func loopback(t *testing.T) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if near, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close() })
	if far, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	return near, far
}

// socket is a net.Conn of which a test holds a step.
type socket struct {
	net.Conn
	write            func([]byte) (int, error)
	setWriteDeadline func(time.Time) error
}

func (s socket) Write(p []byte) (int, error) {
	if s.write == nil {
		return s.Conn.Write(p)
	}
	return s.write(p)
}

func (s socket) SetWriteDeadline(t time.Time) error {
	if s.setWriteDeadline == nil {
		return s.Conn.SetWriteDeadline(t)
	}
	return s.setWriteDeadline(t)
}

// TestWireCoalesces holds that writes which queue up behind one that is under way leave in a single one.
func TestWireCoalesces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		begun, goOn := make(chan struct{}, 100), make(chan struct{})
		var calls [][]byte
		w := newWire(socket{Conn: near, write: func(p []byte) (int, error) {
			calls = append(calls, bytes.Clone(p))
			begun <- struct{}{}
			<-goOn
			return len(p), nil
		}}, time.Minute)

		write := func(p string) {
			if n, err := w.Write([]byte(p)); n != len(p) || err != nil {
				t.Errorf("write %q: got %d, %v", p, n, err)
			}
		}
		write("first")
		<-begun // a lone write goes out at once
		for range 50 {
			write("more ")
		}
		close(goOn)
		synctest.Wait()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if want := bytes.Repeat([]byte("more "), 50); len(calls) != 2 || string(calls[0]) != "first" ||
			!bytes.Equal(calls[1], want) {
			t.Errorf("got the writes %q, want two", calls)
		}
	})
}

// TestWireGathers holds that a write goes out at once while few publishes wait for confirms, however soon after
// another, and that with many there is a moment between two, after which all that has come leaves in one.
func TestWireGathers(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		waiting int64
		want    time.Duration // from the first write to the second
		more    int           // bytes of the second
	}{
		{0, 0, 1}, {1, 0, 1}, {gatherFrom - 1, 0, 1}, {gatherFrom, gatherFrom * gatherEach, 5},
		{16, time.Millisecond, 11}, {500, 2 * time.Millisecond, 22},
	} {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			defer far.Close()
			var times []time.Time
			var sizes []int
			w := newWire(socket{Conn: near, write: func(p []byte) (int, error) {
				times, sizes = append(times, time.Now()), append(sizes, len(p))
				return len(p), nil
			}}, time.Minute)
			w.batchHint.Store(row.waiting)
			// never at the moment at which a write is due: which of the two is first, nobody says
			const pause = 90 * time.Microsecond
			for range 25 {
				if _, err := w.Write([]byte{0}); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				time.Sleep(pause)
			}
			time.Sleep(gatherMost)
			if err := w.Close(); err != nil {
				t.Error(err)
			}
			between := times[1].Sub(times[0])
			if row.want == 0 {
				between -= pause // it came so much later
			}
			if between != row.want || sizes[0] != 1 || sizes[1] != row.more {
				t.Errorf("%d wait: got a second write of %d bytes after %s, want %d after %s", row.waiting, sizes[1],
					between, row.more, row.want)
			}
		})
	}
}

// put writes a message as a publish does: with room reserved.
func put(ctx context.Context, w *wire, p []byte) error {
	if err := w.reserve(ctx, len(p)); err != nil {
		return err
	}
	defer w.unreserve(len(p))
	_, err := w.Write(p)
	return err
}

// TestWireRoomEndsWithContext holds that who waits for room waits no longer than its own deadline, and others go on
// waiting: the broker may read again.
func TestWireRoomEndsWithContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		w := newWire(near, time.Minute)
		for range 2 { // one in the write that hangs, one behind it
			if err := put(t.Context(), w, make([]byte, wirePending)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		others := make(chan error, 1)
		go func() { others <- put(t.Context(), w, []byte("later")) }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if err := put(ctx, w, []byte("x")); !errors.Is(err, context.DeadlineExceeded) ||
			time.Since(begin) != time.Second {
			t.Errorf("got %v after %s, want the context's end after 1s", err, time.Since(begin))
		}
		read := make(chan int, 1)
		go func() {
			n, _ := io.Copy(io.Discard, far)
			read <- int(n)
		}()
		if err := <-others; err != nil {
			t.Errorf("who had more time: %v", err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if got, want := <-read, 2*wirePending+len("later"); got != want {
			t.Errorf("%d bytes arrived, want %d", got, want)
		}
	})
}

// TestWireOneLargeMessage holds that a broker that does not read costs one large message and not two, beside the usual
// ones; and that one which comes in pieces is gathered in a buffer of its size.
func TestWireOneLargeMessage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		w := newWire(near, time.Minute)
		const large = 8 * wirePending
		if err := put(t.Context(), w, []byte("x")); err != nil { // the write hangs
			t.Fatal(err)
		}
		synctest.Wait()
		if err := w.reserve(t.Context(), large); err != nil {
			t.Fatal(err)
		}
		for range large / wirePiece {
			if _, err := w.Write(make([]byte, wirePiece)); err != nil {
				t.Fatal(err)
			}
		}
		w.unreserve(large)
		if most := cap(w.pending); most > large+large/16 {
			t.Errorf("%d bytes wait in a buffer of %d", large, most)
		}
		if _, err := io.ReadFull(far, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the next write hangs
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := put(soon, w, make([]byte, large)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a second large one: got %v, want it to wait", err)
		}
		if err := put(t.Context(), w, []byte("small")); err != nil {
			t.Errorf("a small one: %v", err)
		}
		go func() { _, _ = io.Copy(io.Discard, far) }()
		if err := put(t.Context(), w, make([]byte, large)); err != nil {
			t.Errorf("a second large one, when the first is written: %v", err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestWireToDeafPeer holds that a peer which does not read costs bounded memory and bounded time: messages are taken
// up to the bound, the next ones wait, and after the timeout all of them fail, the socket is closed, and nothing
// hangs.
func TestWireToDeafPeer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		const timeout = 3 * time.Second
		w := newWire(near, timeout)
		begin := time.Now()

		var taken int
		var failed error
		piece := make([]byte, 64<<10)
		for failed == nil {
			if failed = put(t.Context(), w, piece); failed == nil {
				taken += len(piece)
			}
			if taken > 4*wirePending {
				t.Fatalf("%d bytes were taken, the bound is %d", taken, wirePending)
			}
		}
		if got := time.Since(begin); got != timeout {
			t.Errorf("the writer that waited heard of it after %s, want %s", got, timeout)
		}
		if taken < wirePending {
			t.Errorf("%d bytes were taken, want %d", taken, wirePending)
		}
		if _, err := w.Write(piece); err == nil {
			t.Error("a later write was taken")
		}
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the peer reads %v, want the end", err)
		}
		if _, err := w.Read(make([]byte, 1)); err == nil {
			t.Error("a read goes on")
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if got := time.Since(begin); got != timeout {
			t.Errorf("all took %s, want %s", got, timeout)
		}
		if _, err := w.Write(piece); err != failed {
			t.Errorf("a write after Close: got %v, want the cause of it all, %v", err, failed)
		}
	})
}

// TestWireReadUnblocks holds that a reader, as the AMQP library has one, ends when a write was too late.
func TestWireReadUnblocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		w := newWire(near, time.Second)
		read := make(chan error, 1)
		go func() {
			_, err := w.Read(make([]byte, 1))
			read <- err
		}()
		if _, err := w.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := <-read; err == nil || time.Since(begin) != time.Second {
			t.Errorf("read: got %v after %s", err, time.Since(begin))
		}
	})
}

// TestWireCloseFlushes holds that what was written before Close is on the wire after it: the AMQP library's last words
// are a write and a Close.
func TestWireCloseFlushes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		w := newWire(near, time.Second)
		read := make(chan []byte, 1)
		go func() {
			time.Sleep(closeFlush / 2) // a slow peer
			b, _ := io.ReadAll(far)
			read <- b
		}()
		for _, p := range []string{"good", "-", "bye"} {
			if _, err := w.Write([]byte(p)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if got := <-read; string(got) != "good-bye" {
			t.Errorf("the peer read %q", got)
		}
		if _, err := w.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a write after Close: got %v, want %v", err, net.ErrClosed)
		}
		if err := w.Close(); err != nil {
			t.Errorf("a second Close: %v", err)
		}
	})
}

// TestWireCloseIsBounded holds that Close does not wait for a peer that does not read, whatever is under way.
func TestWireCloseIsBounded(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		want time.Duration
		act  func(*wire)
	}{
		{"nothing to write", 0, func(*wire) {}},
		{"something to write", closeFlush, func(w *wire) { _, _ = w.Write([]byte("x")) }},
		{"a write under way and more to write", closeFlush, func(w *wire) {
			_, _ = w.Write([]byte("x"))
			synctest.Wait()
			_, _ = w.Write([]byte("y"))
		}},
		{"a publish that waits for room", closeFlush, func(w *wire) {
			for range 3 {
				go func() { _ = put(context.Background(), w, make([]byte, wirePending+1)) }()
				synctest.Wait()
			}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer far.Close()
				w := newWire(near, time.Minute)
				row.act(w)
				begin := time.Now()
				_ = w.Close()
				if got := time.Since(begin); got > row.want {
					t.Errorf("took %s, want %s at most", got, row.want)
				}
			})
		})
	}
}

// TestWireCloseBesideBatch holds the same when Close comes between the taking of a batch and its write: no write gets a
// later deadline than Close has set.
func TestWireCloseBesideBatch(t *testing.T) {
	t.Parallel()
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			defer far.Close()
			var last time.Time
			w := newWire(socket{Conn: near, setWriteDeadline: func(d time.Time) error {
				last = d
				return near.SetWriteDeadline(d)
			}}, time.Minute)
			begin := time.Now()
			go func() { _, _ = w.Write([]byte("x")) }()
			_ = w.Close()
			if got := time.Since(begin); got > closeFlush || last.Sub(begin) > closeFlush {
				t.Errorf("Close took %s, the last deadline was after %s, want %s at most", got, last.Sub(begin),
					closeFlush)
			}
		})
	}
}

// TestWireSlowPeer holds that a deadline is for progress: a large message may take many times as long on a slow line.
func TestWireSlowPeer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		w := newWire(near, time.Second)
		defer w.Close()
		message := make([]byte, 16*wirePiece)
		if _, err := w.Write(message); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		for range 16 {
			time.Sleep(900 * time.Millisecond)
			if _, err := io.ReadFull(far, make([]byte, wirePiece)); err != nil {
				t.Fatalf("after %s: %v", time.Since(begin), err)
			}
		}
	})
}

// TestWireSilence holds what tells a dead connection: the time since the peer was last heard.
func TestWireSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		w := newWire(near, time.Second)
		defer w.Close()
		time.Sleep(time.Minute)
		if got := w.silence(); got != time.Minute {
			t.Errorf("after a minute: got %s", got)
		}
		go func() { _, _ = far.Write([]byte("x")) }()
		if _, err := w.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if got := w.silence(); got != 0 {
			t.Errorf("after a read: got %s, want 0", got)
		}
	})
}

// TestWireReadDeadline holds that a read deadline counts at once, and that whoever sets it is held for a while, but not
// longer than the wire is open.
func TestWireReadDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		w := newWire(near, time.Second)
		held := make(chan time.Duration, 1)
		set := func() {
			begin := time.Now()
			_ = w.SetReadDeadline(begin.Add(time.Millisecond))
			held <- time.Since(begin)
		}
		begin := time.Now()
		go set()
		_, err := w.Read(make([]byte, 1))
		if took := time.Since(begin); !errors.Is(err, os.ErrDeadlineExceeded) || took != time.Millisecond {
			t.Errorf("a read with a deadline: got %v after %s", err, took)
		}
		if took := <-held; took != deadlineEvery {
			t.Errorf("the deadline's setter was held for %s, want %s", took, deadlineEvery)
		}
		_ = w.Close()
		if set(); <-held != 0 {
			t.Error("held by a closed wire")
		}
	})
}

// TestRetrySoon holds that a broker is tried again within a second, however long it has been away, and not all the
// time.
func TestRetrySoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newConfirmer(confirmerOptions{})
		defer p.close()
		for i := range 200 {
			if err := p.failed(io.EOF); !errors.Is(err, ErrUnavailable) {
				t.Fatalf("got %v, want %v", err, ErrUnavailable)
			}
			if wait := p.untilRetry(); wait < 10*time.Millisecond || wait > time.Second {
				t.Fatalf("after %d tries the next one is in %s", i+1, wait)
			}
		}
	})
}
