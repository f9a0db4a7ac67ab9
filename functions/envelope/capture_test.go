package envelope

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func read(t *testing.T, raw string) *http.Request {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSeal(t *testing.T) {
	t.Parallel()
	const head = "POST / HTTP/1.1\r\nHost: h\r\n"
	for _, row := range []struct {
		name, raw string
		want      error
	}{
		{"headers under the limit", head + "X: " + strings.Repeat("x", 700) + "\r\n\r\n", nil},
		{"headers over the limit", head + "X: " + strings.Repeat("x", 1024) + "\r\n\r\n", ErrHeaderTooLarge},
		{"headers that are over it when they are escaped", head + "X: " + strings.Repeat(`"`, 700) + "\r\n\r\n",
			ErrHeaderTooLarge},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if _, err := Capture(read(t, row.raw), "/", nil, time.Now()).Seal(1024); !errors.Is(err, row.want) {
				t.Fatalf("got %v, want %v", err, row.want)
			}
		})
	}
}

// TestReplayTarget holds that the bytes of a target reach the request line unchanged, behind any base.
func TestReplayTarget(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ base, target, want string }{
		{"http://p", "/", "/"},
		{"http://p/", "/a/b", "/a/b"},
		{"http://p/v2/", "/a?x=1", "/v2/a?x=1"},
		{"http://p/a%2Fb", "/c", "/a%2Fb/c"},
		{"http://p", "/a%2Fb/%E2%82%AC/..%2f/;v=1/~x", "/a%2Fb/%E2%82%AC/..%2f/;v=1/~x"},
		{"http://p", "/a/../b/./c//d", "/a/../b/./c//d"},
		{"http://p", "//c//d", "//c//d"},
		{"http://p/v2", "//c", "/v2//c"},
		{"http://p", "//a%2Fb?x=%zz|y", "//a%2Fb?x=%zz|y"},
		// No URI may begin like this: url.URL would write its decoded form.
		{"http://p", "//a%2Fb|c", "http://p//a%2Fb|c"},
		{"http://p:81", "//a%zz?x=1", "http://p:81//a%zz?x=1"},
		{"http://user:pw@p/", "//caf\xe9", "http://p//caf\xe9"},
		{"http://p/v2", "//a%2Fb|c", "/v2//a%2Fb|c"},
		{"http://p", "/?", "/?"},
		{"http://p", "/?a=1&&b=&=c&d=%20+&f;g?h", "/?a=1&&b=&=c&d=%20+&f;g?h"},
		{"http://p", "/caf\xe9?\xe9", "/caf\xe9?\xe9"},
		{"http://p", `/a"b^c|d`, `/a"b^c|d`},
		{"http://p", "/:", "/:"},
	} {
		base, err := url.Parse(row.base)
		if err != nil {
			t.Fatal(err)
		}
		r := &Request{Method: "POST", Target: row.target, Body: []byte("x")}
		out, err := r.HTTP(context.Background(), base)
		if err != nil {
			t.Fatal(err)
		}
		var wire bytes.Buffer
		if err := out.Write(&wire); err != nil {
			t.Fatal(err)
		}
		line, _, _ := strings.Cut(wire.String(), "\r\n")
		if want := "POST " + row.want + " HTTP/1.1"; line != want {
			t.Errorf("%s + %s: got %q, want %q", row.base, row.target, line, want)
		}
	}
}

// TestUnsendable holds that what is no request is told from one before anything is sent, without showing any of it.
func TestUnsendable(t *testing.T) {
	t.Parallel()
	base, err := url.Parse("http://p/v2")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ method, target, want string }{
		{"", "/geheim", "it has no method"},
		{"POST", "", "its target is not a path"},
		{"POST", "geheim", "its target is not a path"},
		{"POST", "http://geheim/", "its target is not a path"},
		{"POST", "?geheim", "its target is not a path"},
		{"POST", "/geheim\r\nX: y", "its target holds a space or a control character"},
		{"POST", "/geheim?\x00", "its target holds a space or a control character"},
		{"POST", "/geh eim", "its target holds a space or a control character"},
	} {
		if _, err := (&Request{ID: "id", Method: row.method, Target: row.target}).HTTP(context.Background(),
			base); err == nil || err.Error() != row.want {
			t.Errorf("%s %q: got %v, want %s", row.method, row.target, err, row.want)
		}
	}
}

// TestRoundTrip takes a request through all four: what is sent in the end is what came, but for the headers that belong
// to one connection.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	in := read(t, "PATCH /orders/42?x=1 HTTP/1.1\r\nHost: api.example.com\r\nConnection: close, X-Hop, "+
		"X-Forwarded-For\r\nX-Forwarded-For: 192.0.2.1\r\nX-Hop: gone\r\nExpect: 100-continue\r\n"+
		"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\nX-Tag: a\r\nX-Tag: \r\nX-Tag: "+
		"caf\xe9\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n")
	content, err := io.ReadAll(in.Body)
	if err != nil {
		t.Fatal(err)
	}
	captured := Capture(in, in.RequestURI, content, time.Now())
	sealed, err := captured.Seal(64 << 10)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := Decode(sealed.ID, sealed.Metadata, sealed.Body)
	if err != nil {
		t.Fatal(err)
	}
	base, _ := url.Parse("http://primary:8080")
	out, err := decoded.HTTP(context.Background(), base)
	if err != nil {
		t.Fatal(err)
	}
	var wire bytes.Buffer
	if err := out.Write(&wire); err != nil {
		t.Fatal(err)
	}
	got := read(t, wire.String())
	body, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got.Method != "PATCH" || got.RequestURI != "/orders/42?x=1" || got.Host != "primary:8080" ||
		string(body) != "abc" {
		t.Errorf("got %s %s %s %q", got.Method, got.RequestURI, got.Host, body)
	}
	if want := []string{"a", "", "caf\xe9"}; strings.Join(got.Header["X-Tag"], "|") != strings.Join(want, "|") {
		t.Errorf("X-Tag: got %q, want %q", got.Header["X-Tag"], want)
	}
	if got.Header.Get("X-Forwarded-For") != "192.0.2.1" {
		t.Error("a client has taken off what the door says")
	}
	if got.Trailer.Get("X-Sum") != "9" {
		t.Errorf("trailer: got %v", got.Trailer)
	}
	for _, name := range []string{"X-Hop", "Connection", "Expect", "User-Agent"} {
		if v, ok := got.Header[name]; ok {
			t.Errorf("%s: got %q, want none", name, v)
		}
	}
}
