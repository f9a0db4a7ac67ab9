package envelope

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// FuzzHTTP holds that a request of any other program is refused, by us or by net/http, or goes out as one request that
// is the one it says, and not as two.
func FuzzHTTP(f *testing.F) {
	f.Add(`{"v":1,"method":"POST","target":"/orders?x=1","header":{"X-Tag":["a","b"],"Connection":["x-hop"],"X-Hop":["1"]}}`, []byte("{}"))
	f.Add(`{"v":1,"method":"PUT","target":"//a//%2f?","header":{"Content-Length":["7"],"transfer-encoding":["chunked"]},"trailer":{"X-Sum":["1"]}}`, []byte("abc"))
	f.Add(`{"v":1,"method":"POST","target":"/%","header":{}}`, []byte("x"))
	f.Add(`{"v":1,"method":"GET / HTTP/1.1\r\nX: y","target":"/","header":{}}`, []byte(nil))
	f.Add(`{"v":1,"method":"POST","target":"/ HTTP/1.1\r\nHost: evil\r\n\r\nGET /","header":{"X":["1\r\nY: 2"],"A: b":["c"]}}`, []byte(nil))
	f.Add(`{"v":1,"charset":"latin1","method":"POST","target":"/caf\u00e9\u0085","header":{"X":["\u00ff"]}}`,
		[]byte{0, 0xff})
	f.Add(`{"v":1,"method":"post","target":"/","header":{"User-Agent":[],"expect":["100-continue"]},"trailer":{"":[""]}}`, []byte("x"))
	base, err := url.Parse("https://api.example.com/v2/")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, meta string, body []byte) {
		r, err := Decode("id", meta, body)
		if err != nil {
			return
		}
		out, err := r.HTTP(context.Background(), base)
		if err != nil || !wouldSend(out) {
			return
		}
		if _, err := url.ParseRequestURI(r.Target); err != nil {
			// sent as it is: what to make of a wrong escape is for the primary to say, and net/http would say nothing
			// more
			return
		}
		if out.Body != nil {
			out.Body, _ = out.GetBody()
		}
		var wire bytes.Buffer
		if err := out.Write(&wire); err != nil {
			t.Fatal(err)
		}
		sent := wire.String()
		reader := bufio.NewReader(&wire)
		got, err := http.ReadRequest(reader)
		if err != nil {
			t.Fatalf("%v: %q", err, sent)
		}
		gotBody, err := io.ReadAll(got.Body)
		if err != nil {
			t.Fatalf("%v: %q", err, sent)
		}
		if left, _ := io.ReadAll(reader); len(left) > 0 {
			t.Fatalf("more than one request: %q", sent)
		}
		if got.Method != r.Method || got.Host != base.Host || !bytes.Equal(gotBody, r.Body) {
			t.Errorf("%s of %s with %q was sent as %q", r.Method, base.Host, r.Body, sent)
		}
		if want := "/v2" + r.Target; !sameTarget(got.RequestURI, want) {
			t.Errorf("target: got %q, want %q", got.RequestURI, want)
		}
		if diff := cmp.Diff(asSent(endToEnd(r.Header)), asSent(got.Header), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("headers, -decoded +sent:\n%s", diff)
		}
	})
}

// wouldSend says that net/http's client finds nothing wrong, and would connect.
func wouldSend(r *http.Request) bool {
	errConnects := errors.New("it connects")
	connect := func(context.Context, string, string) (net.Conn, error) { return nil, errConnects }
	transport := &http.Transport{DialContext: connect, DialTLSContext: connect}
	_, err := transport.RoundTrip(r)
	return errors.Is(err, errConnects)
}

// sameTarget is about bytes; only where a path begins with two slashes may what no URI may hold be escaped.
func sameTarget(got, want string) bool {
	if got == want {
		return true
	}
	a, errA := url.PathUnescape(got)
	b, errB := url.PathUnescape(want)
	return errA == nil && errB == nil && a == b
}

// asSent are the headers as they are read: without the space around a value, and without what net/http writes by
// itself.
func asSent(h http.Header) http.Header {
	out := http.Header{}
	for name, values := range h {
		for _, v := range values {
			out.Add(name, string(bytes.Trim([]byte(v), " \t")))
		}
	}
	for _, name := range slices.Concat(hopByHop, []string{"Expect"}) {
		out.Del(name)
	}
	return out
}
