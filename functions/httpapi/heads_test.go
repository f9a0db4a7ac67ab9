package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/problem"
)

// listenTCP serves on loopback until the test ends.
func listenTCP(t *testing.T, s *Server) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return ln.Addr().String()
}

// talk sends all of it before it reads the answers, and returns their status lines and problem types.
func talk(t *testing.T, addr, raw string) (answers []string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(conn, raw) // it may be refused before its end
	if half, ok := conn.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
	in := bufio.NewReader(conn)
	for {
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			return answers
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Errorf("an answer that breaks off: %v", err)
		}
		_, rest, _ := strings.Cut(string(body), problem.Prefix)
		name, _, _ := strings.Cut(rest, `"`)
		answers = append(answers, strings.TrimSpace(fmt.Sprint(response.StatusCode, " ", name)))
	}
}

// TestHeads holds how many bytes and fields a head may have, that a body's are not taken for a head's, that every
// answer is one of ours and arrives, and that no connection stays behind what it would keep too much of.
func TestHeads(t *testing.T) {
	t.Parallel()
	const post = "POST /fallback HTTP/1.1\r\nHost: h\r\n"
	fields := func(n int, end string) (all string) {
		for i := range n {
			all += fmt.Sprintf("%d:%s", i%100, end) // few names, so that what is stored of them is short
		}
		return all
	}
	const length = "Content-Length: 2\r\n\r\nok"
	lines := strings.Repeat("\n", 2000)
	chunked := post + "Transfer-Encoding: chunked\r\n\r\n7d0\r\n" + lines + "\r\n0\r\n"
	for _, row := range []struct {
		name, raw string
		want      []string
	}{
		{"as many fields as can be", post + fields(510, "\r\n") + length, []string{"202"}},
		{"one more", post + fields(511, "\r\n") + length, []string{"431 headers-too-large"}},
		{"one more, and no end", post + fields(512, "\r\n"), []string{"431 headers-too-large"}},
		{"far more", post + fields(5_000, "\r\n") + length, []string{"431 headers-too-large"}},
		{"far more, with short line ends", post + fields(5_000, "\n") + length, []string{"431 headers-too-large"}},
		{"far more, all folded", post + "X: y" + strings.Repeat("\r\n z", 5_000) + "\r\n" + length,
			[]string{"431 headers-too-large"}},
		{"a field that is too long", post + "X: " + strings.Repeat("x", 40_000) + "\r\n" + length,
			[]string{"431 headers-too-large"}},
		{"a request line that is too long", "POST /fallback/" + strings.Repeat("x", 40_000) +
			" HTTP/1.1\r\nHost: h\r\n" + length, []string{"431 headers-too-large"}},
		{"behind a line that is kept", "POST /fallback/" + strings.Repeat("x", 1_900) + " HTTP/1.1\r\nHost: h\r\n" +
			length + post + length, []string{"202", "202"}},
		{"behind one that is not", "POST /fallback/" + strings.Repeat("x", 2_100) + " HTTP/1.1\r\nHost: h\r\n" +
			length + post + length, []string{"202"}},
		{"line ends and nothing else", strings.Repeat("\r\n", 100), []string{"400"}},
		{"a field that is too long for a message", post + "X: " + strings.Repeat("x", 10_000) + "\r\n" + length,
			[]string{"431 headers-too-large"}},
		{"a body of line ends", post + "Content-Length: 2000\r\n\r\n" + lines, []string{"202"}},
		{"a chunked body of line ends, twice", chunked + "\r\n" + chunked + "\r\n", []string{"202", "202"}},
		{"a second head at once", post + length + post + fields(512, "\r\n") + length,
			[]string{"202", "431 headers-too-large"}},
		{"a second head at once, behind chunks", chunked + "\r\n" + post + fields(512, "\r\n") + length,
			[]string{"202", "431 headers-too-large"}},
		{"four heads at once", strings.Repeat(post+fields(500, "\r\n")+length, 4),
			[]string{"202", "202", "202", "202"}},
		{"a trailer", chunked + fields(512, "\r\n") + "\r\n", []string{"202"}},
		{"a trailer that is too long", chunked + fields(513, "\r\n") + "\r\n", []string{"431 headers-too-large"}},
		{"a head in place of a trailer's end", chunked + "\n" + post + fields(400, "\n") + "\r\n\r\n",
			[]string{"400 unreadable"}},
		{"a body that waits to be asked for", post + "Expect: 100-continue\r\n" + length + post + length,
			[]string{"100", "202", "202"}},
		{"HTTP/1.0", "POST /fallback HTTP/1.0\r\n" + fields(511, "\r\n") + length, []string{"202"}},
		{"all that OPTIONS asks", "OPTIONS * HTTP/1.1\r\nHost: h\r\nContent-Length: 2000\r\n\r\n" + lines,
			[]string{"404 not-found"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			o := options()
			o.Limits.Body, o.Limits.Header = 4096, 8192
			s := NewServer(door(t, o, store{}))
			if got := talk(t, listenTCP(t, s), row.raw); fmt.Sprint(got) != fmt.Sprint(row.want) {
				t.Errorf("got %q, want %q", got, row.want)
			}
			for end := time.Now().Add(time.Minute); s.slots.taken() > 0 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			if held := s.heads.used.Load(); held != 0 {
				t.Errorf("%d bytes are held when nobody is there", held)
			}
		})
	}
}

// TestAllHeads holds that heads which are fine by themselves get a 503 when all of them together take too much, until
// others have been answered, or are gone; and that small ones are served all the same.
func TestAllHeads(t *testing.T) {
	t.Parallel()
	const post = "POST /fallback HTTP/1.1\r\nHost: h\r\n"
	var (
		fields = strings.Repeat("a:\r\n", 100)
		small  = post + "Content-Length: 1\r\n\r\nx"
		large  = post + fields + "Content-Length: 1\r\n\r\nx"
		cost   head
	)
	cost.take([]byte(large))
	for _, row := range []struct {
		name, first string
		end         func(first net.Conn)
	}{
		{"one that has not come whole", post + fields, func(first net.Conn) { first.Close() }},
		{"one that is in hand", post + fields + "Content-Length: 2\r\n\r\nx", func(first net.Conn) {
			_, _ = io.WriteString(first, "y")
			_, _ = http.ReadResponse(bufio.NewReader(first), nil)
		}},
		{"a trailer", post + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + fields,
			func(first net.Conn) { first.Close() }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex // guards refused
				var refused []string
				o := options()
				o.Refused = func(reason string) { mu.Lock(); defer mu.Unlock(); refused = append(refused, reason) }
				s := NewServer(door(t, o, store{}))
				s.heads.most = cost.cost() - freeCost + 500 // the others are a little longer
				ln := listen(t, s)
				ask := func(raw string, want int) {
					t.Helper()
					conn := ln.dial()
					defer conn.Close()
					go func() { _, _ = io.WriteString(conn, raw) }()
					if response, body := answer(t, bufio.NewReader(conn)); response.StatusCode != want {
						t.Errorf("got %s %s, want %d", response.Status, body, want)
					}
				}
				ask(large, http.StatusAccepted)
				synctest.Wait()
				first := ln.dial()
				defer first.Close()
				go func() { _, _ = io.WriteString(first, row.first) }()
				synctest.Wait()
				ask(large, http.StatusServiceUnavailable)
				ask(post+"Transfer-Encoding: chunked\r\n\r\n0\r\n"+fields+"\r\n", http.StatusServiceUnavailable)
				ask(small, http.StatusAccepted)
				ask("GET /livez HTTP/1.1\r\nHost: h\r\n\r\n", http.StatusOK)
				row.end(first)
				synctest.Wait()
				ask(large, http.StatusAccepted)
				mu.Lock()
				defer mu.Unlock()
				if fmt.Sprint(refused) != fmt.Sprint([]string{HeadsFull, HeadsFull}) {
					t.Errorf("got %v turned away, want two", refused)
				}
			})
		})
	}
}

// TestLargeHeadsKeepNoOthersOut holds that heads which do not end lose what they have to smaller ones, the largest
// first; that a request in hand does not; and that a slot of the reserve is none for a large head.
func TestLargeHeadsKeepNoOthersOut(t *testing.T) {
	t.Parallel()
	const post = "POST /fallback HTTP/1.1\r\nHost: h\r\n"
	fields := func(n int) string { return post + strings.Repeat("a:\r\n", n) }
	held := func(n int) int64 {
		var h head
		h.take([]byte(fields(n)))
		return h.cost() - freeCost
	}
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(door(t, options(), store{}))
		s.heads.most = held(300) + held(120) + held(160) + held(140) + held(60)
		s.slots, s.reserve = newSlots(6), newSlots(1)
		ln := listen(t, s)
		stay := func(text string) net.Conn {
			conn := ln.dial()
			go func() { _, _ = io.WriteString(conn, text) }()
			synctest.Wait()
			return conn
		}
		accepted := func(conn net.Conn) {
			t.Helper()
			if response, body := answer(t, bufio.NewReader(conn)); response.StatusCode != http.StatusAccepted {
				t.Errorf("got %s %s, want 202", response.Status, body)
			}
		}
		inHand := stay(fields(298) + "Content-Length: 2\r\n\r\nx")
		unfinished := map[int]net.Conn{120: nil, 140: nil, 160: nil}
		for n := range unfinished {
			unfinished[n] = stay(fields(n))
		}
		clients := []net.Conn{inHand}
		for i, n := range []int{70, 80} { // one has to go for each of them
			client := stay(fields(n) + "Content-Length: 1\r\n\r\nx")
			clients = append(clients, client)
			accepted(client)
			largest := []int{160, 140}[i]
			s.heads.add(held(largest)) // and what has become free is taken
			if _, err := unfinished[largest].Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("the head of %d fields has not lost its connection: %v", largest, err)
			}
		}
		s.heads.add(-held(160) - held(140))
		go func() { _, _ = io.WriteString(inHand, "y") }()
		accepted(inHand)
		for _, conn := range unfinished {
			clients = append(clients, conn)
		}
		for s.slots.taken() < s.slots.most {
			clients = append(clients, ln.dial())
			synctest.Wait()
		}
		reserved := stay(fields(100))
		if response, _ := answer(t, bufio.NewReader(reserved)); response.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a large head in the reserve got %s", response.Status)
		}
		for _, conn := range append(clients, reserved) {
			conn.Close()
		}
		synctest.Wait()
		if held := s.heads.used.Load(); held != 0 {
			t.Errorf("%d bytes are held when nobody is there", held)
		}
	})
}
