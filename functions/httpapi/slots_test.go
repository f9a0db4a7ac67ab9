package httpapi

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/envelope"
)

// from is a connection of an address.
type from struct {
	net.Conn
	ip string
}

func (f from) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(f.ip), Port: 1} }
func (f from) Close() error         { return nil }

// TestWhoLosesItsSlot holds that it is the one that has waited longest, of the address that has the most connections.
func TestWhoLosesItsSlot(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		// addresses, by when they began to wait; with a plus it was just now; with a star they have a request in hand,
		// with a percent sign its body trickles, with a tilde it was refused
		in    []string
		loser int // -1 for nobody
	}{
		{"all of one address", []string{"192.0.2.1", "192.0.2.1", "192.0.2.1"}, 0},
		{"the longest there has a request in hand", []string{"192.0.2.1*", "192.0.2.1", "192.0.2.1"}, 1},
		{"another address has more", []string{"192.0.2.1", "192.0.2.2", "192.0.2.2"}, 1},
		{"another address has more, and requests in hand", []string{"192.0.2.2*", "192.0.2.1", "192.0.2.2*"}, 1},
		{"an IPv6 host has many addresses", []string{"192.0.2.1", "2001:db8::1", "2001:db8::2"}, 1},
		{"IPv4 in IPv6 is IPv4", []string{"2001:db8::1", "192.0.2.1", "::ffff:192.0.2.1"}, 1},
		{"one of each", []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}, 0},
		{"all have come just now", []string{"192.0.2.1+", "192.0.2.1+", "192.0.2.1+"}, -1},
		{"all have come just now, each from somewhere else", []string{"192.0.2.2+", "192.0.2.3+", "192.0.2.4+"}, -1},
		{"another address has more, and just now", []string{"192.0.2.1", "192.0.2.2+", "192.0.2.2+", "192.0.2.2+"}, 1},
		{"the longest there has begun a head just now", []string{"192.0.2.1+", "192.0.2.1", "192.0.2.1"}, 1},
		{"the longest there has been refused, and lingers", []string{"192.0.2.1*", "192.0.2.1~", "192.0.2.1"}, 1},
		{"a body trickles", []string{"192.0.2.2*", "192.0.2.1%", "192.0.2.1*"}, 1},
		{"a body trickles, and another address has more that wait", []string{"192.0.2.1%", "192.0.2.2", "192.0.2.2"},
			1},
		{"all have requests in hand", []string{"192.0.2.1*", "192.0.2.1*", "192.0.2.2*"}, -1},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			p := newSlots(len(row.in))
			var in []*conn
			for i, ip := range row.in {
				ip, justNow := strings.CutSuffix(ip, "+")
				ip, inHand := strings.CutSuffix(ip, "*")
				ip, lingers := strings.CutSuffix(ip, "~")
				ip, trickles := strings.CutSuffix(ip, "%")
				c := newConn(from{ip: ip}, nil)
				if !justNow {
					c.since.Add(-time.Hour.Nanoseconds() + int64(i))
				}
				if inHand {
					c.stage.Store(busy)
				}
				if lingers {
					c.stage.Store(lingering)
				}
				if trickles {
					c.stage.Store(busy)
					c.arriving.Store(&intake{begin: time.Now().Add(-time.Minute)})
				}
				if loser, ok := p.take(c); loser != nil || !ok {
					t.Fatalf("there is no slot for number %d", i)
				}
				in = append(in, c)
			}
			loser, ok := p.take(newConn(from{ip: "192.0.2.1"}, nil))
			if got := slices.Index(in, loser); got != row.loser || ok != (row.loser >= 0) {
				t.Errorf("number %d lost its slot, want %d; there is one: %v", got, row.loser, ok)
			}
			for _, c := range in {
				p.leave(c)
				p.leave(c) // more than once is once
			}
			newcomers := map[bool]int{true: 1}[ok]
			if p.taken() != newcomers || len(p.per) != newcomers {
				t.Errorf("when all others have left, %d are in, of %d addresses", p.taken(), len(p.per))
			}
		})
	}
}

// TestSlots holds what becomes of one connection too many: it gets the slot of one that waits; when none does, it is
// told that there is no room, at once, but for what it may ask about the server itself; and there is room again
// afterwards.
func TestSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards refused
		refused := map[string]int{}
		o := options()
		o.Refused = func(reason string) { mu.Lock(); defer mu.Unlock(); refused[reason]++ }
		released, asked := make(chan struct{}), make(chan struct{})
		s := NewServer(door(t, o, store{
			publish: func(_ context.Context, r *envelope.Request) error {
				if string(r.Body) == "w" {
					<-released
				}
				return nil
			},
			ready: func(context.Context) error { <-asked; return nil },
		}))
		s.slots, s.reserve = newSlots(2), newSlots(1)
		ln := listen(t, s)
		send := func(conn net.Conn, request string) {
			go func() { _, _ = io.WriteString(conn, request) }()
			synctest.Wait()
		}
		hear := func(conn net.Conn, want int, closing bool) {
			t.Helper()
			begin := time.Now()
			response, body := answer(t, bufio.NewReader(conn))
			if response.StatusCode != want || response.Close != closing || time.Since(begin) > 0 {
				t.Errorf("got %s after %s, closing %v, want %d at once, closing %v", response.Status, time.Since(begin),
					response.Close, want, closing)
			}
			if want == http.StatusServiceUnavailable {
				if !strings.Contains(body, "urn:fallback:problem:overloaded") ||
					response.Header.Get("Retry-After") == "" {
					t.Errorf("got %v %s", response.Header, body)
				}
			}
		}
		ended := func(conn net.Conn) bool {
			_, err := conn.Read(make([]byte, 1))
			return err == io.EOF
		}
		const post, live, ready = "POST /fallback HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n",
			"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n", "GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n"

		idle := ln.dial()
		send(idle, post+"x")
		hear(idle, http.StatusAccepted, false)
		time.Sleep(time.Second)
		silent := ln.dial()
		time.Sleep(time.Second)
		first := ln.dial()
		send(first, post+"w")
		if !ended(idle) {
			t.Error("the one that has waited longest has kept its slot")
		}
		time.Sleep(time.Second)
		second := ln.dial()
		send(second, post+"w")
		if !ended(silent) {
			t.Error("one that has said nothing has kept its slot, and longer than others")
		}

		stranger := ln.dial()
		send(stranger, post+"x")
		hear(stranger, http.StatusServiceUnavailable, true)
		stranger.Close()
		synctest.Wait() // else its slot may be taken before it has left
		healthy := ln.dial()
		send(healthy, live)
		hear(healthy, http.StatusOK, true)
		healthy.Close()
		synctest.Wait()
		mute := ln.dial()
		time.Sleep(settleTime)
		probe := ln.dial()
		send(probe, ready)
		if !ended(mute) {
			t.Error("one that says nothing has kept a slot of the reserve")
		}
		last := ln.dial()
		send(last, live)
		hear(last, http.StatusServiceUnavailable, true)
		last.Close()
		quiet := ln.dial() // it is one too many, too
		time.Sleep(turnAwayTime + time.Millisecond)
		if !ended(quiet) {
			t.Error("one that says nothing was answered")
		}
		close(asked)
		hear(probe, http.StatusOK, true)

		close(released)
		hear(first, http.StatusAccepted, false)
		hear(second, http.StatusAccepted, false)
		synctest.Wait()
		time.Sleep(settleTime)
		again := ln.dial()
		send(again, post+"x")
		hear(again, http.StatusAccepted, false)
		for _, conn := range []net.Conn{first, second, again, probe, idle, silent, mute, quiet} {
			conn.Close()
		}
		synctest.Wait()
		if s.slots.taken() != 0 || s.reserve.taken() != 0 || s.heads.used.Load() != 0 {
			t.Errorf("when all have left, %d and %d slots are taken, and %d bytes held", s.slots.taken(),
				s.reserve.taken(), s.heads.used.Load())
		}
		mu.Lock()
		defer mu.Unlock()
		if want := map[string]int{LostSlot: 4, NoSlot: 3}; len(refused) != 2 ||
			refused[LostSlot] != want[LostSlot] || refused[NoSlot] != want[NoSlot] {
			t.Errorf("got %v turned away, want %v", refused, want)
		}
	})
}

// TestStalledBodiesHoldNoSlots holds that requests whose bodies do not come, or that were refused and not ended by
// their client, keep no slot from others.
func TestStalledBodiesHoldNoSlots(t *testing.T) {
	t.Parallel()
	for name, stalled := range map[string]string{
		"stalled": "POST /fallback HTTP/1.1\r\nHost: h\r\nFallback-Authorization: Bearer one\r\nContent-Length: " +
			"10\r\n\r\nx",
		"refused": "POST /fallback HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nx",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := options()
				o.Tokens = []string{"one"}
				s := NewServer(door(t, o, store{}))
				s.slots, s.reserve = newSlots(4), newSlots(1)
				ln := listen(t, s)
				for range 4 {
					conn := ln.dial()
					defer conn.Close()
					go func() { _, _ = io.WriteString(conn, stalled) }()
					go func() { _, _ = io.Copy(io.Discard, conn) }()
				}
				time.Sleep(trickleAfter + 50*time.Millisecond)
				client := ln.dial()
				defer client.Close()
				go func() {
					_, _ = io.WriteString(client,
						"POST /fallback HTTP/1.1\r\nHost: h\r\nFallback-Authorization: Bearer "+
							"one\r\nContent-Length: 1\r\n\r\ny")
				}()
				if response, body := answer(t, bufio.NewReader(client)); response.StatusCode != http.StatusAccepted {
					t.Errorf("got %s %s, want 202", response.Status, body)
				}
			})
		})
	}
}
