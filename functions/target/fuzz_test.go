package target

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fallback/functions/envelope"
)

// FuzzSend holds that a message of any program gets to the primary once or not at all, as the attempt that it is, with
// our word in the headers that are ours.
func FuzzSend(f *testing.F) {
	f.Add("01a20262-fead-745d-a0dd-93831abf4e21",
		`{"v":1,"method":"PUT","target":"/orders//4%2f2?x=1&x","header":{"Fallback-Id":["forged"],"idempotency-key":["theirs"]}}`, []byte("{}"))
	f.Add("", `{"v":1,"method":"POST","target":"/","host":"h","header":{"Fallback-Attempt":["9","8"],"connection":["fallback-id"]},"trailer":{"Fallback-Id":["forged"]}}`, []byte("x"))
	f.Add("a\r\nb", `{"v":1,"method":"GET","target":"/","host":"h\r\nX: y","header":{"Expect":["100-continue"],"X":["\u0000"]}}`, []byte(nil))
	f.Add("7", `{"v":1,"method":"CONNECT","target":"/","header":{"":[""],"Upgrade":["h2c"],"Te":["trailers"]}}`,
		[]byte(nil))
	arrived := make(chan *http.Request, 10)
	primary := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		arrived <- r
	}))
	f.Cleanup(primary.Close)
	client, err := New(Options{URL: primary.URL, Timeout: time.Minute, Connections: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(client.Close)
	f.Fuzz(func(t *testing.T, id, meta string, body []byte) {
		r, err := envelope.Decode(id, meta, body)
		if err != nil {
			return
		}
		v := client.Send(context.Background(), r, Try{Attempt: 3})
		checkVerdict(t, v)
		if n := len(arrived); n > 1 || v.Action == Done != (n == 1) {
			t.Fatalf("%d arrived, and the verdict is %+v", n, v)
		}
		if v.Action != Done {
			return
		}
		got := <-arrived
		ours := map[string][]string{envelope.HeaderAttempt: {"3"}, envelope.HeaderID: nil,
			envelope.HeaderSignature: nil}
		if id != "" {
			ours[envelope.HeaderID] = []string{strings.Trim(id, " \t")}
		}
		for name, want := range ours {
			if !slices.Equal(got.Header[name], want) {
				t.Errorf("%s: got %q, want %q", name, got.Header[name], want)
			}
		}
	})
}

// FuzzAnswer holds that any bytes in place of an answer come to a verdict soon, which asks for a bounded wait and has
// no more for people than we have written ourselves.
func FuzzAnswer(f *testing.F) {
	for _, head := range []string{
		"200 OK\r\nContent-Length: 2\r\n\r\nok", "204 \r\n\r\n",
		"101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
		"503 No\r\nRetry-After: 7\r\n\r\n", "429 No\r\nRetry-After: 1e300\r\n\r\n",
		"503 No\r\nRetry-After: Sun, 22 Nov 2026 12:00:30 GMT\r\nRetry-After: x\r\n\r\n",
		"100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 302 Found\r\nLocation: //\r\n\r\n",
		"500 \x00\r\n\r\n", "999 x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
	} {
		f.Add([]byte("HTTP/1.1 " + head))
	}
	f.Add([]byte("SSH-2.0-OpenSSH\r\n"))
	f.Add([]byte(nil))
	var says atomic.Pointer[[]byte]
	primary := answering(f, &says)
	client, err := New(Options{URL: "http://" + primary, Timeout: time.Minute})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(client.Close)
	f.Fuzz(func(t *testing.T, answer []byte) {
		says.Store(&answer)
		v := client.Send(context.Background(), captured(), Try{Attempt: 1})
		checkVerdict(t, v)
		if v.Action == Done && (v.Status < 200 || v.Status > 299) {
			t.Errorf("done with %+v", v)
		}
	})
}

// answering is the address of a primary that answers one request on each connection with what it is told to say, and
// closes it.
func answering(f *testing.F, says *atomic.Pointer[[]byte]) string {
	f.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = conn.Write(*says.Load())
			}
			_ = conn.Close()
		}
	}()
	return ln.Addr().String()
}

func checkVerdict(t *testing.T, v Verdict) {
	t.Helper()
	if !slices.Contains([]Action{Done, Pause, Fail, Refuse, Reject}, v.Action) || v.After < 0 ||
		v.After > longestPause {
		t.Errorf("got %+v", v)
	}
	if len(v.Reason) > 200 || strings.ContainsFunc(v.Reason, func(c rune) bool { return c < ' ' || c > '~' }) {
		t.Errorf("for people: %q", v.Reason)
	}
}
