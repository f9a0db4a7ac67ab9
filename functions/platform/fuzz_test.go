package platform

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net/url"
	"strings"
	"testing"
)

// FuzzTarget holds that path and query of any event become what a request line may hold, in origin form; that what the
// client wrote stays as it is, and what the platform decoded can be decoded again to the same.
func FuzzTarget(f *testing.F) {
	f.Add("/orders/42", "x=1&y", false)
	f.Add("/a%2Fb//c%zz", "%", false)
	f.Add("/café au lait?#%", "q=a b", true)
	f.Add("", "", true)
	f.Add("orders\r\nX-Forged: 1", "\r\n\r\nGET / HTTP/1.1", true)
	f.Add("/\x00\x7f\xff%41%4", "?", true)
	f.Fuzz(func(t *testing.T, path, query string, isDecoded bool) {
		target := Request{Path: path, Query: query, IsDecoded: isDecoded}.target()
		if !strings.HasPrefix(target, "/") || strings.ContainsFunc(target, noURIByte) {
			t.Fatalf("%q is in no request line", target)
		}
		necessary := isNotInRequestLine
		if isDecoded {
			necessary = isNotInPath
		}
		escaped := escape(path, necessary)
		if again := escape(escaped, necessary); again != escaped {
			t.Errorf("%q is escaped twice: %q", escaped, again)
		}
		if !isDecoded {
			if !strings.ContainsFunc(path, noURIByte) && escaped != path {
				t.Errorf("%q was changed to %q", path, escaped)
			}
			return
		}
		if strings.ContainsAny(escaped, "?#") {
			t.Errorf("the path ends early: %q", escaped)
		}
		back, err := url.PathUnescape(escaped)
		if err != nil {
			t.Errorf("%q: %v", escaped, err)
		}
		if !strings.Contains(path, "%") && back != path {
			t.Errorf("%q comes back as %q", path, back)
		}
	})
}

// noURIByte says that a request line may hold no such byte as it is; a rune of more than one byte has none that it may.
func noURIByte(c rune) bool { return c <= ' ' || c >= 0x7f }

// FuzzBody holds that a body is refused or comes out byte for byte, with its length.
func FuzzBody(f *testing.F) {
	f.Add("", false)
	f.Add("{}", false)
	f.Add("e30=", true)
	f.Add("e30", true)
	f.Add("e3\n0=\r\n", true)
	f.Add("%%%", true)
	f.Fuzz(func(t *testing.T, body string, isBase64 bool) {
		r, err := Request{Body: body, IsBase64: isBase64}.HTTP(context.Background())
		if err != nil {
			if !isBase64 {
				t.Errorf("plain text is refused: %v", err)
			}
			return
		}
		got, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		if r.ContentLength != int64(len(got)) {
			t.Errorf("its length is said to be %d, and is %d", r.ContentLength, len(got))
		}
		want := []byte(body)
		if isBase64 { // which line ends may break
			want = []byte(strings.NewReplacer("\r", "", "\n", "").Replace(body))
			got = []byte(base64.StdEncoding.EncodeToString(got))
			if len(want) > 0 && len(got) == len(want) { // the bits before the padding may be any
				n := bytes.IndexByte(append(got, '='), '=') - 1
				got, want = got[:n], want[:n]
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
