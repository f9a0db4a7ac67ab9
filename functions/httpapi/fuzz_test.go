package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"fallback/functions/envelope"
	"fallback/functions/problem"
)

// FuzzDoor sends any bytes to a server with a door. It holds that each 202 stands for one stored request and the other
// way round, that what is stored can be written down, read and sent, and that every other answer of the door is a
// problem.
func FuzzDoor(f *testing.F) {
	files, err := filepath.Glob("../../test/corpus/*.http")
	if err != nil || len(files) == 0 {
		f.Fatal(err, len(files))
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	for _, line := range []string{
		"POST http://a.example/fallback?x HTTP/1.1", "POST http://a.example?/fallback HTTP/1.1",
		"POST *://fallback/fallback HTTP/1.1",
		"OPTIONS * HTTP/1.1", "CONNECT a.example:443 HTTP/1.1", "GET /livez HTTP/1.1", "HEAD /readyz?x HTTP/1.0",
		"POST /fallback//a//%zz HTTP/1.1",
		"PUT /fallbackk HTTP/1.1", "PRI * HTTP/2.0", "POST /fallback HTTP/1.1\r\nExpect: more",
	} {
		f.Add([]byte(line + "\r\nHost: h\r\n\r\n"))
	}
	f.Add([]byte("POST /fallback HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\naPOST /fallback HTTP/1.1\r\nHost: " +
		"h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n"))
	for _, trailer := range []string{"X-Sum: 1\x00", "X-Sum: \xff", "Host: h", "X_: ", "X-Sum : 1",
		"Content-Length: 1"} {
		f.Add([]byte("POST /fallback HTTP/1.1\r\nHost: h\r\nTrailer: \", Never\r\nTransfer-Encoding: " +
			"chunked\r\n\r\n0\r\n" + trailer + "\r\n\r\n"))
	}

	var stored []*envelope.Request
	o := options()
	o.Limits = Limits{Body: 8 << 10, Header: 64 << 10}
	d, err := New(o, store{publish: func(_ context.Context, r *envelope.Request) error {
		stored = append(stored, r)
		return nil
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		stored = nil
		accepted := 0
		for _, a := range answers(t, converse(d, raw)) {
			switch {
			case a.status == http.StatusAccepted:
				accepted++
			case a.status >= 400 && a.kind == "application/problem+json":
				checkProblem(t, a)
			case a.status >= 400 && a.kind == "text/plain; charset=utf-8", a.status == http.StatusExpectationFailed: // net/http's own
			case a.status == http.StatusOK: // livez and readyz
			default:
				t.Errorf("answered %+v", a)
			}
		}
		if accepted != len(stored) {
			t.Errorf("%d are stored, and %d accepted", len(stored), accepted)
		}
		for _, r := range stored {
			checkStored(t, r)
		}
	})
}

// checkStored holds that a request which a client was promised to be replayed can be.
func checkStored(t *testing.T, r *envelope.Request) {
	t.Helper()
	out, err := r.HTTP(context.Background(), &url.URL{Scheme: "http", Host: "api.example.com"})
	if err != nil {
		t.Fatalf("accepted, and cannot be sent: %v: %s", err, r.Metadata())
	}
	if _, err := refusing.RoundTrip(out); !errors.Is(err, errDial) {
		t.Errorf("accepted, and net/http will not send it: %v: %s", err, r.Metadata())
	}
}

// refusing is a client that gets as far as connecting: what is wrong with a request comes before.
var (
	errDial  = errors.New("nobody is there")
	refusing = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return nil,
			errDial
	}}
)

// answered is what a client reads.
type answered struct {
	status int
	kind   string
	body   []byte
}

func answers(t *testing.T, raw []byte) (all []answered) {
	t.Helper()
	reader := bufio.NewReader(bytes.NewReader(raw))
	for {
		if _, err := reader.Peek(1); err != nil {
			return all
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatalf("%v: %q", err, raw)
		}
		if response.StatusCode == http.StatusContinue {
			continue
		}
		a := answered{status: response.StatusCode, kind: response.Header.Get("Content-Type")}
		if next, _ := reader.Peek(5); string(next) != "HTTP/" { // an answer to HEAD has a length, and no body
			if a.body, err = io.ReadAll(response.Body); err != nil && len(a.body) > 0 {
				t.Fatalf("%v: %q", err, raw)
			}
		}
		all = append(all, a)
	}
}

func checkProblem(t *testing.T, a answered) {
	t.Helper()
	var p problem.Problem
	if err := json.Unmarshal(a.body, &p); len(a.body) > 0 &&
		(err != nil || p.Status != a.status || !strings.HasPrefix(p.Type, problem.Prefix)) {
		t.Errorf("%v: %d with %s", err, a.status, a.body)
	}
	if a.status == http.StatusInternalServerError {
		t.Errorf("a bug of ours: %s", a.body)
	}
}

// converse sends raw, and is all that comes back until the server closes the connection.
func converse(h http.Handler, raw []byte) []byte {
	conn := &conversation{in: bytes.NewReader(raw), closed: make(chan struct{})}
	server := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	_ = server.Serve(&oneConn{conn})
	<-conn.closed
	return conn.out.Bytes()
}

// oneConn is a listener that has one connection.
type oneConn struct{ conn net.Conn }

func (l *oneConn) Accept() (conn net.Conn, err error) {
	if l.conn == nil {
		return nil, net.ErrClosed
	}
	conn, l.conn = l.conn, nil
	return conn, nil
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// conversation is a connection whose client has sent all that it will, and reads when it is over. Nothing on it waits,
// so it needs no deadlines.
type conversation struct {
	in     *bytes.Reader
	out    bytes.Buffer
	once   sync.Once
	closed chan struct{}
}

func (c *conversation) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *conversation) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *conversation) Close() error                     { c.once.Do(func() { close(c.closed) }); return nil }
func (c *conversation) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *conversation) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *conversation) SetDeadline(time.Time) error      { return nil }
func (c *conversation) SetReadDeadline(time.Time) error  { return nil }
func (c *conversation) SetWriteDeadline(time.Time) error { return nil }

// FuzzKeys holds that nobody comes in without a token of ours, or a signature over these very bytes that is of now;
// and that who has the token does. What is right is said here once more, in other words than the door's and the
// library's.
func FuzzKeys(f *testing.F) {
	const token, secret = "s3cret", "key of a webhook"
	now := func() string { return strconv.FormatInt(time.Now().Unix(), 10) }
	sign := func(id, at, body string) string {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(id + "." + at + "." + body))
		return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	f.Add("Bearer s3cret", "", "", "", "{}")
	f.Add("bearer   s3cret ", "", "", "", "")
	f.Add("Bearer", "id", now(), sign("id", now(), "{}"), "{}")
	f.Add("Basic s3cret", "id", now(), "v1a,x v1,"+base64.StdEncoding.EncodeToString(make([]byte,
		sha256.Size))+" "+sign("id", now(), "a")+",", "a")
	f.Add("Bearer s3cret,s3cret", "id.1", "1", sign("id.1", "1", "a"), "a")
	f.Add("", "id", "+"+now(), sign("id", now(), ""), "")
	f.Add("Bearer \x00s3cret", "id", "-9223372036854775808", "v1,", "x")

	o := options()
	o.Limits = Limits{Body: 1 << 20, Header: 1 << 20}
	o.Tokens, o.WebhookSecrets = []string{token}, []string{"whsec_" + base64.StdEncoding.EncodeToString([]byte(secret))}
	d, err := New(o, store{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, credentials, id, at, signatures, body string) {
		r := request("POST", "/fallback", body)
		for name, value := range map[string]string{
			"Fallback-Authorization": credentials, "Webhook-Id": id, "Webhook-Timestamp": at,
			"Webhook-Signature": signatures,
		} {
			if value != "" {
				r.Header[name] = []string{value}
			}
		}
		status := serve(d, r).Code
		scheme, rest, _ := strings.Cut(credentials, " ")
		hasToken := strings.EqualFold(scheme, "bearer") && strings.TrimSpace(rest) == token
		seconds, err := strconv.ParseInt(at, 10, 64)
		age := time.Since(time.Unix(seconds, 0)).Abs()
		isSigned := err == nil && age < 6*time.Minute &&
			strings.Contains(signatures, sign(id, strconv.FormatInt(seconds, 10), body))
		switch {
		case status == http.StatusAccepted && !hasToken && !isSigned:
			t.Errorf("let in with %q, %q, %q, %q", credentials, id, at, signatures)
		case status != http.StatusAccepted && hasToken:
			t.Errorf("kept out with the token: %d", status)
		case status != http.StatusAccepted && status != http.StatusUnauthorized:
			t.Errorf("answered %d", status)
		}
	})
}

// FuzzPathToken holds that no token is left where it would let somebody in, or in a header that repeats the path, and
// that what is no token stays.
func FuzzPathToken(f *testing.F) {
	for _, seed := range []string{"/-/s3cret/orders", "/-/s3cret", "/-/s3cret?x", "/-/%733cret//a%2Fb",
		"/-/-/s3cret/s3cret", "/-/other/x", "/-/s3cret/x/-/s3cret/y", "/-/s3cret/-/s3cret", "/-/%zz", "/-/"} {
		f.Add(seed)
	}
	o := options()
	o.Limits = Limits{Body: 1 << 10, Header: 1 << 20}
	o.Tokens = []string{"s3cret"}
	var stored *envelope.Request
	d, err := New(o, store{publish: func(_ context.Context, r *envelope.Request) error { stored = r; return nil }})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if !strings.HasPrefix(path, "/") {
			return
		}
		stored = nil
		r := request("POST", "/fallback"+path, "x")
		r.Header["X-Original-Url"] = []string{path, "https://h" + path}
		status := serve(d, r).Code
		if opens(path) != (status == http.StatusAccepted) {
			t.Fatalf("%q: answered %d", path, status)
		}
		if status != http.StatusAccepted {
			return
		}
		for _, kept := range append([]string{stored.Target}, stored.Header["X-Original-Url"]...) {
			if strings.Contains(kept+"/", "/-/s3cret/") {
				t.Errorf("%q: stored %q", path, kept)
			}
		}
		if opens(stored.Target) {
			t.Errorf("%q: stored as %s, which opens the door, too", path, stored.Target)
		}
	})
}

// opens says whether a path lets in.
func opens(path string) bool {
	rest, ok := strings.CutPrefix(path, "/-/")
	for _, ends := range []string{"/?#", "/?#,;&|()<>'\" "} {
		segment := rest
		if end := strings.IndexAny(rest, ends); end >= 0 {
			segment = rest[:end]
		}
		if token, err := url.PathUnescape(segment); ok && err == nil && token == "s3cret" {
			return true
		}
	}
	return false
}
