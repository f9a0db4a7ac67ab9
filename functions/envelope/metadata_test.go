package envelope

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// FuzzMetadata holds the promise of the codec: whatever bytes a request is made of, they come back.
func FuzzMetadata(f *testing.F) {
	f.Add("POST", "/orders/42?x=1", "api.example.com", "203.0.113.7:5000", "X-Tag", "a", "b", "", []byte("{}"))
	f.Add("PUT", "/caf\xe9", "", "", "X-Latin1", "caf\xe9", "caf\u00e9", "x", []byte{0, 255})
	f.Add("PATCH", "/\"\\\n\x7f\u2028", "h", "r", "K", "\x00\x1f", "<&>", "\"", []byte(nil))
	f.Add("POST", "/", "h", "r", "K", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\ufffd", []byte("x"))
	f.Fuzz(func(t *testing.T, method, target, host, remote, name, v1, v2, trailer string, body []byte) {
		want := &Request{
			ID: "0190", Method: method, Target: target, Host: host, Scheme: "https", Proto: "HTTP/1.1", Remote: remote,
			Prefix:     target,
			ReceivedAt: time.Unix(1_700_000_000, 123_456_789).UTC(),
			Header:     http.Header{}, // with names as net/http writes them
			Body:       body,
		}
		want.Header[http.CanonicalHeaderKey(name)] = []string{v1, v2}
		want.Header[http.CanonicalHeaderKey(name+"2")] = []string{v2, v1, v1}
		if trailer != "" {
			want.Trailer = http.Header{"T": {trailer}}
		}
		meta := want.Metadata()
		if !json.Valid([]byte(meta)) {
			t.Fatalf("not JSON: %q", meta)
		}
		got, err := Decode("0190", meta, body)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("changed on the way (-sent +read):\n%s", diff)
		}
	})
}

// FuzzDecode holds that metadata from outside is refused or read, and what is read can be written and read again.
func FuzzDecode(f *testing.F) {
	f.Add(`{"v":1,"method":"POST","target":"/","header":{"A":["b"]},"charset":"latin1","received_at":"2026-01-02T03:04:05.6Z"}`)
	f.Add(`{"v":1,"charset":"latin1","method":"€"}`)
	f.Add(`{"v":2}`)
	f.Add(`{"v":1,"received_at":"9999-12-31T23:59:59-23:59"}`)
	f.Add(`{"v":1,"received_at":"0000-01-01T00:00:00+23:59"}`)
	f.Fuzz(func(t *testing.T, meta string) {
		first, err := Decode("id", meta, nil)
		if err != nil {
			return
		}
		second, err := Decode("id", first.Metadata(), nil)
		if err != nil {
			t.Fatalf("own metadata refused: %v", err)
		}
		if diff := cmp.Diff(first, second, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("changed on the way (-first +second):\n%s", diff)
		}
	})
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, meta, want string }{
		{"no JSON", `{`, "metadata of id"},
		{"newer version", `{"v":2}`, "version 2"},
		{"no version", `{}`, "version 0"},
		{"unknown charset", `{"v":1,"charset":"ebcdic"}`, `charset "ebcdic"`},
		{"not latin1", `{"v":1,"charset":"latin1","target":"/€"}`, "above U+00FF"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, err := Decode("id", row.meta, nil)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want an error with %q", err, row.want)
			}
		})
	}
}

// TestDecodeForeignNames holds that another program may write the names of headers in any case, and that a name in two
// of them is one header.
func TestDecodeForeignNames(t *testing.T) {
	t.Parallel()
	r, err := Decode("id", `{"v":1,"method":"POST","target":"/","header":{"content-type":["a"],"X-TAG":["2"],"X-Tag":["3"],"x-tag":["4","5"],`+
		`"odd name":["6"]},"trailer":{"x-sum":["7"]}}`, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	want := http.Header{"Content-Type": {"a"}, "X-Tag": {"2", "3", "4", "5"}, "odd name": {"6"}}
	if diff := cmp.Diff(want, r.Header); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(http.Header{"X-Sum": {"7"}}, r.Trailer); diff != "" {
		t.Errorf("trailer, -want +got:\n%s", diff)
	}
	latin, err := Decode("id", `{"v":1,"charset":"latin1","header":{"x-é":["1"],"x-tag":["café"]}}`, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(http.Header{"x-\xe9": {"1"}, "X-Tag": {"caf\xe9"}}, latin.Header); diff != "" {
		t.Errorf("latin1, -want +got:\n%s", diff)
	}
}

// TestMetadataForm pins the names that readers in other languages rely on.
func TestMetadataForm(t *testing.T) {
	t.Parallel()
	r := &Request{
		ID: "id", Method: "POST", Target: "/a?b=<c>", Host: "h", Scheme: "http", Proto: "HTTP/1.1", Remote: "r",
		Prefix:     "/p",
		ReceivedAt: time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.FixedZone("", 3600)),
		Header:     http.Header{"X-Tag": {"1", "2"}},
	}
	want := `{"v":1,"method":"POST","target":"/a?b=<c>","host":"h","scheme":"http","proto":"HTTP/1.1","remote":"r","prefix":"/p",` +
		`"received_at":"2026-01-02T02:04:05.6789Z","header":{"X-Tag":["1","2"]},"bodyless":true}`
	if got := r.Metadata(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func benchmarkRequest() *Request {
	return &Request{
		Method: "POST", Target: "/orders/42?x=1", Host: "api.example.com", Scheme: "https", Proto: "HTTP/1.1",
		Remote: "203.0.113.7:51234", ReceivedAt: time.Now().UTC(), Body: make([]byte, 256),
		Header: http.Header{
			"Accept": {"*/*"}, "Accept-Encoding": {"gzip"}, "Content-Type": {"application/json"},
			"Content-Length": {"256"},
			"User-Agent":     {"Go-http-client/1.1"}, "X-Request-Id": {"7f3c1d7e-6d4b-4a55-a6b8-1f2f0f8f6f10"},
		},
	}
}

func BenchmarkMetadata(b *testing.B) {
	r := benchmarkRequest()
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = r.Metadata()
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = json.Marshal(metadata{
				Version: 1, Method: r.Method, Target: r.Target, Host: r.Host, Scheme: r.Scheme, Proto: r.Proto,
				Remote: r.Remote, ReceivedAt: r.ReceivedAt, Header: r.Header,
			})
		}
	})
}
