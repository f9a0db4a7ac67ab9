package target

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/envelope"
)

// wirePrimary is a primary below net/http. It remembers every request with its first line, and has answer do with it
// and its connection what the test wants; false closes the connection.
type wirePrimary struct {
	net.Listener
	mu  sync.Mutex
	got []*http.Request
}

func newWirePrimary(t *testing.T, answer func(n int, r *http.Request, conn net.Conn) bool) *wirePrimary {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &wirePrimary{Listener: ln}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go p.converse(conn, answer)
		}
	}()
	return p
}

// pipedClient has its primary at the other end of a pipe, so that their waits are those of a synctest bubble.
func pipedClient(t *testing.T, o Options, answer func(n int, r *http.Request, conn net.Conn) bool) *Client {
	t.Helper()
	p := &wirePrimary{}
	var conversations sync.WaitGroup
	t.Cleanup(conversations.Wait)
	o.URL = "http://primary.test"
	c := newClient(t, o)
	c.transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		conversations.Go(func() { p.converse(there, answer) })
		return here, nil
	}
	return c
}

func (p *wirePrimary) converse(conn net.Conn, answer func(int, *http.Request, net.Conn) bool) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	in := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		p.mu.Lock()
		p.got = append(p.got, r)
		n := len(p.got)
		p.mu.Unlock()
		if !answer(n, r, conn) {
			return
		}
	}
}

func (p *wirePrimary) requests() []*http.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*http.Request(nil), p.got...)
}

func ok(conn net.Conn) bool {
	_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	return err == nil
}

// TestSentOnce holds that one attempt reaches the primary once, also on a kept connection that breaks: net/http would
// send again what has an Idempotency-Key, as all of ours have.
func TestSentOnce(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		request *envelope.Request
		reset   bool
	}{
		{"a body", captured(), false},
		{"no body", &envelope.Request{ID: "1", Method: "DELETE", Target: "/orders/1"}, false},
		{"the client's own key", &envelope.Request{ID: "1", Method: "POST", Target: "/", Body: []byte("x"),
			Header: http.Header{"Idempotency-Key": {"a"}, "X-Idempotency-Key": {"b"}}}, false},
		{"a body, and the connection is reset", captured(), true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			p := newWirePrimary(t, func(n int, _ *http.Request, conn net.Conn) bool {
				if n == 2 && row.reset {
					_ = conn.(*net.TCPConn).SetLinger(0)
				}
				return n != 2 && ok(conn)
			})
			c := newClient(t, Options{URL: "http://" + p.Addr().String()})
			if v := c.Send(context.Background(), row.request, Try{Attempt: 1}); v.Action != Done {
				t.Fatalf("the first: %+v", v)
			}
			if v := c.Send(context.Background(), row.request, Try{Attempt: 2}); v.Action != Pause || v.Status != 0 {
				t.Errorf("on a connection that breaks: %+v", v)
			}
			got := p.requests()
			if len(got) != 2 {
				t.Errorf("the primary got %d requests, want 2", len(got))
			}
			for name, want := range row.request.Header {
				if strings.Contains(name, "Idempotency") && got[1].Header.Get(name) != want[0] {
					t.Errorf("%s: got %q, want %q", name, got[1].Header[name], want)
				}
			}
			if got[1].Header.Get("Idempotency-Key") == "" {
				t.Error("it has no Idempotency-Key")
			}
		})
	}
}

// TestIdleConnectionClosed holds that a primary which closes a kept connection between requests costs no pause.
func TestIdleConnectionClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := pipedClient(t, Options{}, func(_ int, _ *http.Request, conn net.Conn) bool { ok(conn); return false })
		for i := range 3 {
			if v := c.Send(context.Background(), captured(), Try{Attempt: 1}); v.Action != Done {
				t.Errorf("number %d: %+v", i, v)
			}
			synctest.Wait() // for the close to arrive
		}
	})
}

// oddTargets must keep every byte on their way.
var oddTargets = []string{"/", "/orders//4%2f2?x=1&x", "//c//d", "/a/../b/./c", "/%E2%82%AC/%e2?q=%20+%2B", `/a"b^c|d`,
	"/caf\xe9?\xe9", "/?", "/:80", "//user@host/x"}

// sendAll sends a request to each of the odd targets and says what came of it.
func sendAll(c *Client) (failed string) {
	for _, target := range oddTargets {
		if v := c.Send(context.Background(), &envelope.Request{ID: "1", Method: "POST", Target: target,
			Body: []byte("x")}, Try{Attempt: 1}); v.Action != Done {
			failed += fmt.Sprintf("%q: %+v\n", target, v)
		}
	}
	return failed
}

// TestMain is also the program that sends by a proxy: which one is read from the environment, once.
func TestMain(m *testing.M) {
	if base := os.Getenv("FALLBACK_TEST_SEND_TO"); base != "" {
		c, err := New(Options{URL: base})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if alive, v := c.Probe(context.Background()); !alive {
			fmt.Printf("the probe: %+v\n", v)
		}
		fmt.Print(sendAll(c))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestProxy holds that requests keep their bytes by a proxy, or without one, and that a proxy gets what it asks for.
func TestProxy(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, scheme string
		proxied      bool
	}{{"http", "http", false}, {"http by a proxy", "http", true}, {"https by a proxy", "https", true}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var got []string
			primary := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				if r.Method == http.MethodPost {
					got = append(got, r.RequestURI)
				}
			}))
			if row.scheme == "https" {
				primary.StartTLS()
			} else {
				primary.Start()
			}
			t.Cleanup(primary.Close)
			address := primary.Listener.Addr().String()
			proxy, asked := newProxy(t, address)
			env := []string{"FALLBACK_TEST_SEND_TO=" + row.scheme + "://" + address}
			if row.proxied { // never for loopback, so the primary has a name, which the proxy knows
				env = []string{"FALLBACK_TEST_SEND_TO=" + row.scheme + "://api.example.com", "HTTP_PROXY=" + proxy,
					"HTTPS_PROXY=" + proxy}
			}
			if row.scheme == "https" {
				file := t.TempDir() + "/ca.pem"
				if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE",
					Bytes: primary.Certificate().Raw}), 0o600); err != nil {
					t.Fatal(err)
				}
				env = append(env, "SSL_CERT_FILE="+file)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0])
			cmd.Env = env
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Fatalf("%v\n%s", err, out)
			}
			mu.Lock()
			defer mu.Unlock()
			if want := strings.Join(oddTargets, "\n"); strings.Join(got, "\n") != want {
				t.Errorf("the primary got %q, want %q", got, oddTargets)
			}
			if n := len(asked()); (n > 0) != row.proxied {
				t.Errorf("the proxy was asked %d times", n)
			}
			for _, line := range asked() {
				if row.scheme == "http" && !strings.Contains(line, " http://api.example.com/") ||
					row.scheme == "https" && !strings.HasPrefix(line, "CONNECT api.example.com:443 ") {
					t.Errorf("the proxy was asked %q", line)
				}
			}
		})
	}
}

// newProxy is a small HTTP proxy with one host behind it. It takes what RFC 9112, 3.2.2 says, and nothing else.
func newProxy(t *testing.T, behind string) (address string, asked func() []string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	var mu sync.Mutex
	var lines []string
	serve := func(conn net.Conn) {
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
		in := bufio.NewReader(conn)
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		mu.Lock()
		lines = append(lines, line)
		mu.Unlock()
		out, err := net.Dial("tcp", behind)
		if err != nil {
			return
		}
		defer out.Close()
		method, rest, _ := strings.Cut(line, " ")
		if method == http.MethodConnect {
			for line != "\r\n" {
				if line, err = in.ReadString('\n'); err != nil {
					return
				}
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
		} else {
			target, absolute := strings.CutPrefix(rest, "http://api.example.com")
			if !absolute {
				_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: "+
					"close\r\n\r\n")
				return
			}
			// so that each request is one connection
			_, _ = io.WriteString(out, method+" "+target+"Connection: close\r\n")
		}
		go func() { _, _ = io.Copy(out, in) }()
		_, _ = io.Copy(conn, out)
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return "http://" + ln.Addr().String(), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), lines...)
	}
}

// TestUnsendable holds that what net/http refuses is parked, and why; paused, it would stall the drain: it fails before
// anything is asked of the primary.
func TestUnsendable(t *testing.T) {
	t.Parallel()
	p := newPrimary(t, nil)
	c := newClient(t, Options{URL: p.URL})
	const refused = "it cannot be sent: its method, or a header's name or value, is none that HTTP allows"
	for _, row := range []struct {
		name   string
		change func(*envelope.Request)
		reason string
	}{
		{"a header's name with a control byte", func(r *envelope.Request) { r.Header["X-\x00"] = []string{"a"} },
			refused},
		{"a header's name with a space", func(r *envelope.Request) { r.Header["X Tag"] = []string{"a"} }, refused},
		{"a header without a name", func(r *envelope.Request) { r.Header[""] = []string{"a"} }, refused},
		{"a header's value with a line end", func(r *envelope.Request) { r.Header["X-Tag"] = []string{"a\r\nX-Forged: b"} }, refused},
		{"a key with a control byte", func(r *envelope.Request) { r.Header["Idempotency-Key"] = []string{"\x01"} },
			refused},
		{"a host with a line end", func(r *envelope.Request) { r.Host = "h\r\n" }, refused},
		{"an id with a line end", func(r *envelope.Request) { r.ID = "1\n" }, refused},
		{"a method with a space", func(r *envelope.Request) { r.Method = "BAD METHOD" }, refused},
		{"no method", func(r *envelope.Request) { r.Method = "" }, "it cannot be sent: it has no method"},
		{"a target without a slash", func(r *envelope.Request) { r.Target = "orders" },
			"it cannot be sent: its target is not a path"},
		{"a target with a line end", func(r *envelope.Request) { r.Target = "/a\r\nX-Forged: b" },
			"it cannot be sent: its target holds a space or a control character"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := captured()
			row.change(r)
			if v := c.Send(context.Background(), r, Try{Attempt: 1}); v.Action != Reject || v.Reason != row.reason || v.Status != 0 {
				t.Errorf("got %+v, want it parked: %s", v, row.reason)
			}
		})
	}
	// no trailers, by any means: they are left out
	for _, name := range []string{"Transfer-Encoding", "Trailer", "Content-Length", "X Sum", ""} {
		r := captured()
		r.Trailer = http.Header{name: {"1"}, "X-Sum": {"a"}}
		if v := c.Send(context.Background(), r, Try{Attempt: 1}); v.Action != Done {
			t.Errorf("with a trailer %s: got %+v", name, v)
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if v := c.Send(ended, captured(), Try{Attempt: 1}); v.Action != Pause {
		t.Errorf("when the drain has ended before: got %+v", v)
	}
}

// TestEndlessAnswer holds that the answer counts whatever becomes of its body, and that a slow one is not waited for.
func TestEndlessAnswer(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		takes time.Duration // of an answer and a probe
		rest  func(net.Conn)
	}{
		{"never ends", 2 * discardTimeout, func(conn net.Conn) {
			for {
				if _, err := io.WriteString(conn, "1\r\nx\r\n"); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		}},
		{"floods", 0, func(conn net.Conn) {
			chunk := append([]byte("8000\r\n"), append(bytes.Repeat([]byte("x"), 0x8000), "\r\n"...)...)
			for {
				if _, err := conn.Write(chunk); err != nil {
					return
				}
			}
		}},
		{"breaks", 0, func(net.Conn) {}},
		{"hangs", 2 * discardTimeout, func(conn net.Conn) { _, _ = conn.Read(make([]byte, 1)) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := pipedClient(t, Options{}, func(_ int, _ *http.Request, conn net.Conn) bool {
					_, _ = io.WriteString(conn,
						"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
					row.rest(conn)
					return false
				})
				begin := time.Now()
				if v := c.Send(context.Background(), captured(), Try{Attempt: 1}); v.Action != Done || v.Status != 201 {
					t.Errorf("got %+v", v)
				}
				if alive, v := c.Probe(context.Background()); !alive {
					t.Errorf("the probe: got %+v", v)
				}
				if took := time.Since(begin); took != row.takes {
					t.Errorf("took %s, want %s", took, row.takes)
				}
			})
		})
	}
}

// TestForeignAnswers holds that an answer which a primary should not give has a verdict soon, costs little, and leaves
// nothing that hangs.
func TestForeignAnswers(t *testing.T) {
	t.Parallel()
	const fields = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"
	for _, row := range []struct {
		name, answer string
		action       Action
		status       int
		reason       string
	}{
		{"another protocol, without an end", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: " +
			"websocket\r\n\r\n", Fail, 101, "101 Switching Protocols"},
		{"a head of tiny lines", fields + strings.Repeat("a:\r\n", 2<<20) + "\r\n", Fail, 0,
			"the head of the answer is larger than 32 KiB"},
		{"a head with a long line", fields + "a: " + strings.Repeat("a", 9<<20) + "\r\n\r\n", Fail, 0,
			"the head of the answer is larger than 32 KiB"},
		{"a head without an end", fields + strings.Repeat("a: b\r\n", 16<<10), Fail, 0,
			"the head of the answer is larger than 32 KiB"},
		{"a body that does not come", "HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\n", Done, 201, "201 Created"},
		{"a large head, as servers give it", fields + "set-cookie: " + strings.Repeat("a", 8000) + "\r\ncsp: " +
			strings.Repeat("b", 16000) + "\r\n\r\n", Done, 200, "200 OK"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			hold := make(chan struct{})
			t.Cleanup(func() { close(hold) })
			p := newWirePrimary(t, func(_ int, _ *http.Request, conn net.Conn) bool {
				go func() { _, _ = io.WriteString(conn, row.answer) }() // what is not read does not keep it
				<-hold
				return false
			})
			c := newClient(t, Options{URL: "http://" + p.Addr().String(), Timeout: time.Hour})
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // far over what it may take
			defer cancel()
			if v := c.Send(ctx, captured(), Try{Attempt: 1}); v.Action != row.action || v.Status != row.status ||
				v.Reason != row.reason {
				t.Errorf("got %+v, want %s because of %q", v, row.action, row.reason)
			}
		})
	}
}

// TestLargeHeadHTTP2 holds the same for HTTP/2.
func TestLargeHeadHTTP2(t *testing.T) {
	t.Parallel()
	p := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for i := range 40 {
			w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("a", 1000))
		}
	}))
	p.EnableHTTP2 = true
	p.StartTLS()
	t.Cleanup(p.Close)
	c := newClient(t, Options{URL: p.URL})
	c.transport.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
	c.transport.TLSClientConfig.RootCAs.AddCert(p.Certificate())
	if v := c.Send(context.Background(), captured(), Try{Attempt: 1}); v.Action != Fail ||
		!strings.Contains(v.Reason, "the head of the answer") {
		t.Errorf("got %+v", v)
	}
}
