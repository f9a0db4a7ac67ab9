package fault

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echo is a server that sends back what it gets; through is a connection to it through a proxy.
func echo(t *testing.T) (p *proxy, dial func() net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	if p, err = startProxy(ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p, func() net.Conn {
		conn, err := net.Dial("tcp", p.addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		roundTrip(t, conn, "hello")
		return conn
	}
}

func roundTrip(t *testing.T, conn net.Conn, text string) (took time.Duration) {
	t.Helper()
	start := time.Now()
	_ = conn.SetDeadline(start.Add(patience))
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, []byte(text)) {
		t.Fatalf("got %q, want %q", got, text)
	}
	return time.Since(start)
}

// silent fails the test when anything comes, or an end.
func silent(t *testing.T, conn net.Conn) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %d bytes and %v, want silence", n, err)
	}
}

func TestProxyBlackHole(t *testing.T) {
	t.Parallel()
	p, dial := echo(t)
	conn := dial()
	p.set(blackHole)
	if _, err := conn.Write([]byte("held back")); err != nil {
		t.Fatal(err)
	}
	silent(t, conn)
	fresh, err := net.Dial("tcp", p.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	silent(t, fresh)
	p.set(passing)
	got := make([]byte, 9)
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "held back" {
		t.Fatalf("got %q, %v", got, err)
	}
	roundTrip(t, fresh, "hello")
}

func TestProxySlowAndSliced(t *testing.T) {
	t.Parallel()
	p, dial := echo(t)
	conn := dial()
	p.set(slow)
	if took := roundTrip(t, conn, "hello"); took < 2*delay {
		t.Errorf("a round trip took %s, want at least %s", took, 2*delay)
	}
	p.set(sliced)
	roundTrip(t, conn, string(bytes.Repeat([]byte("0123456789"), 2000)))
	p.set(passing)
	before := p.disturbed.Load()
	roundTrip(t, conn, "hello")
	if p.disturbed.Load() > before {
		t.Error("a round trip is still disturbed")
	}
}

func TestProxyReset(t *testing.T) {
	t.Parallel()
	p, dial := echo(t)
	conn := dial()
	p.reset()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) ||
		errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want a reset", err)
	}
	dial()
}

func TestProxyHalfOpen(t *testing.T) {
	t.Parallel()
	p, dial := echo(t)
	conn := dial()
	p.forget()
	for range 3 {
		if _, err := conn.Write([]byte("into the void")); err != nil {
			t.Fatalf("the near side was told: %v", err)
		}
		silent(t, conn)
	}
	dial() // new ones work
}

func TestProxySwallows(t *testing.T) {
	t.Parallel()
	p, dial := echo(t)
	conn := dial()
	p.swallow()
	if _, err := conn.Write([]byte("no answer")); err != nil {
		t.Fatal(err)
	}
	silent(t, conn)
	dial() // new ones work
	if n := p.connections(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}
