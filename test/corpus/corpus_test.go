package corpus

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"hash"
	"image/png"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func byName(t *testing.T, name string) Request {
	t.Helper()
	for _, r := range All() {
		if r.Name == name {
			return r
		}
	}
	t.Fatalf("no request %s", name)
	return Request{}
}

// one returns the value of a field that must occur exactly once.
func one(t *testing.T, r Request, name string) string {
	t.Helper()
	vs := r.Values(name)
	if len(vs) != 1 {
		t.Fatalf("%s: %s: %q, want one value", r.Name, name, vs)
	}
	return vs[0]
}

func TestFilesParse(t *testing.T) {
	entries, err := files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, e := range entries {
		raw, err := files.ReadFile(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		total += len(raw)
		if _, err := Parse(e.Name(), raw); err != nil {
			t.Errorf("%s: %v", e.Name(), err)
		}
	}
	if total >= 300_000 {
		t.Errorf("the files are %d bytes together, want less than 300,000", total)
	}
}

func TestEveryRequest(t *testing.T) {
	names := map[string]bool{}
	for _, r := range All() {
		t.Run(r.Name, func(t *testing.T) {
			if names[r.Name] {
				t.Error("the name is not unique")
			}
			names[r.Name] = true
			if got := one(t, r, NameField); got != r.Name {
				t.Errorf("%s: %q", NameField, got)
			}
			if got := one(t, r, "Host"); got != Host {
				t.Errorf("Host: %q", got)
			}
			if got := r.Values("Connection"); got != nil {
				t.Errorf("Connection: %q", got)
			}
			if !strings.HasPrefix(r.Target, "/fallback/") {
				t.Errorf("target %q is not below the prefix", r.Target)
			}
			lengths := r.Values("Content-Length")
			switch {
			case r.Chunked || r.Body == nil:
				if lengths != nil {
					t.Errorf("Content-Length: %q", lengths)
				}
			case !slices.Equal(lengths, []string{strconv.Itoa(len(r.Body))}):
				t.Errorf("Content-Length: %q, but the body has %d bytes", lengths, len(r.Body))
			}
			if !r.Chunked {
				if !bytes.HasSuffix(r.Raw, append([]byte("\r\n\r\n"), r.Body...)) {
					t.Error("the raw bytes do not end in the body")
				}
				if r.Trailer != nil {
					t.Errorf("trailer %q without chunks", r.Trailer)
				}
			}
		})
	}
	if len(names) != 36 {
		t.Errorf("%d requests, want 36", len(names))
	}
}

func TestNetHTTPAgrees(t *testing.T) {
	for _, r := range All() {
		t.Run(r.Name, func(t *testing.T) {
			br := bufio.NewReader(bytes.NewReader(r.Raw))
			h, err := http.ReadRequest(br)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(h.Body)
			if err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(br); err != nil || len(rest) > 0 {
				t.Errorf("%q left unread, %v", rest, err)
			}
			if h.Method != r.Method || h.RequestURI != r.Target || h.Host != Host {
				t.Errorf("%s %s at %s, want %s %s", h.Method, h.RequestURI, h.Host, r.Method, r.Target)
			}
			if !bytes.Equal(body, r.Body) {
				t.Errorf("body of %d bytes differs from the corpus's of %d", len(body), len(r.Body))
			}
			// net/http takes these out of the header.
			want := grouped(r.Header)
			delete(want, "Host")
			delete(want, "Transfer-Encoding")
			delete(want, "Trailer")
			if !reflect.DeepEqual(h.Header, want) {
				t.Errorf("header\n%q, want\n%q", h.Header, want)
			}
			if got, want := h.Trailer, grouped(r.Trailer); len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
				t.Errorf("trailer %q, want %q", got, want)
			}
			if got := slices.Equal(h.TransferEncoding, []string{"chunked"}); got != r.Chunked {
				t.Errorf("transfer encoding %q, want chunked: %v", h.TransferEncoding, r.Chunked)
			}
		})
	}
}

func grouped(fields []Field) http.Header {
	h := http.Header{}
	for _, f := range fields {
		h.Add(f.Name, f.Value)
	}
	return h
}

// TestSignatures computes each signature from what a receiver sees and the
// test secrets, in the way its provider documents.
func TestSignatures(t *testing.T) {
	mac := func(h func() hash.Hash, key string, parts ...string) []byte {
		m := hmac.New(h, []byte(key))
		for _, p := range parts {
			_, _ = io.WriteString(m, p)
		}
		return m.Sum(nil)
	}
	b64 := base64.StdEncoding.EncodeToString
	check := func(r Request, field, want string) {
		t.Helper()
		if got := one(t, r, field); got != want {
			t.Errorf("%s: %s: %q, want %q", r.Name, field, got, want)
		}
	}

	r := byName(t, "github-push")
	check(r, "X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac(sha256.New, Secret, string(r.Body))))
	check(r, "X-Hub-Signature", "sha1="+hex.EncodeToString(mac(sha1.New, Secret, string(r.Body))))

	r = byName(t, "shopify-order")
	check(r, "X-Shopify-Hmac-Sha256", b64(mac(sha256.New, Secret, string(r.Body))))

	r = byName(t, "slack-slash-command")
	check(r, "X-Slack-Signature", "v0="+hex.EncodeToString(
		mac(sha256.New, Secret, "v0:", one(t, r, "X-Slack-Request-Timestamp"), ":", string(r.Body))))

	r = byName(t, "stripe-event")
	signature := regexp.MustCompile(`^t=([0-9]+),v1=([0-9a-f]{64}),v0=[0-9a-f]{64}$`).
		FindStringSubmatch(one(t, r, "Stripe-Signature"))
	if signature == nil {
		t.Errorf("Stripe-Signature: %q", one(t, r, "Stripe-Signature"))
	} else if want := hex.EncodeToString(mac(sha256.New, StripeSecret, signature[1], ".",
		string(r.Body))); signature[2] != want {
		t.Errorf("Stripe-Signature: v1=%s, want %s", signature[2], want)
	}

	r = byName(t, "standard-webhooks")
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(StandardWebhooksSecret, "whsec_"))
	if err != nil || string(key) != Secret {
		t.Errorf("StandardWebhooksSecret holds %q, %v", key, err)
	}
	want := "v1," + b64(mac(sha256.New, Secret, one(t, r, "webhook-id"), ".", one(t, r, "webhook-timestamp"), ".",
		string(r.Body)))
	if got := strings.Split(one(t, r, "webhook-signature"), " "); len(got) != 2 || got[1] != want {
		t.Errorf("webhook-signature: %q, want the second to be %q", got, want)
	}

	r = byName(t, "twilio-form")
	form, err := url.ParseQuery(string(r.Body))
	if err != nil {
		t.Fatal(err)
	}
	signed := Origin + r.Target
	for _, k := range slices.Sorted(maps.Keys(form)) {
		signed += k + strings.Join(form[k], "")
	}
	check(r, "X-Twilio-Signature", b64(mac(sha1.New, Secret, signed)))

	r = byName(t, "authorization")
	bearer := one(t, r, "Authorization")
	i := strings.LastIndex(bearer, ".")
	check(r, "Authorization", bearer[:i+1]+base64.RawURLEncoding.EncodeToString(
		mac(sha256.New, Secret, strings.TrimPrefix(bearer[:i], "Bearer "))))

	r = byName(t, "chunked-trailer")
	sum := sha256.Sum256(r.Body)
	if got, want := values(r.Trailer, "content-digest"),
		"sha-256=:"+b64(sum[:])+":"; !slices.Equal(got, []string{want}) {
		t.Errorf("trailer Content-Digest: %q, want %q", got, want)
	}
}

// TestSpecial checks that each request still has what README.md says is
// special about it, where no other test does.
func TestSpecial(t *testing.T) {
	special := map[string]func(*testing.T, Request) bool{
		"empty-body": func(t *testing.T, r Request) bool {
			return r.Method == "POST" && r.Body != nil &&
				len(r.Body) == 0
		},
		"no-body": func(t *testing.T, r Request) bool { return r.Method == "DELETE" && r.Body == nil },
		"multipart-png": func(t *testing.T, r Request) bool {
			_, params, err := mime.ParseMediaType(one(t, r, "Content-Type"))
			if err != nil {
				t.Fatal(err)
			}
			mr, images := multipart.NewReader(bytes.NewReader(r.Body), params["boundary"]), []string{}
			for {
				p, err := mr.NextPart()
				if errors.Is(err, io.EOF) {
					return slices.Equal(images, []string{"Schröder – Übersicht €.png", "dot (%22x%22).png"})
				}
				if err != nil {
					t.Fatal(err)
				}
				if p.FileName() == "" {
					continue
				}
				if _, err := png.Decode(p); err != nil {
					t.Errorf("%s: %v", p.FileName(), err)
				}
				images = append(images, p.FileName())
			}
		},
		"gzip-body": func(t *testing.T, r Request) bool {
			z, err := gzip.NewReader(bytes.NewReader(r.Body))
			if err != nil {
				t.Fatal(err)
			}
			plain, err := io.ReadAll(z)
			return err == nil && json.Valid(plain) && z.ModTime.IsZero() && one(t, r, "Content-Encoding") == "gzip"
		},
		OneMebibyte: func(t *testing.T, r Request) bool {
			sum := sha256.Sum256(r.Body)
			return len(r.Body) == 1048576 && hex.EncodeToString(sum[:]) == "1d2c3797a755b2bc21580ebaed2307e1f10dac31974315dc94bf9a4ae88359f9"
		},
		"latin1-text": func(t *testing.T, r Request) bool { return !utf8.Valid(r.Body) },
		"latin1-header": func(t *testing.T, r Request) bool {
			return one(t, r, "X-Customer-Name") == "Ren\xe9 Dupont"
		},
		"utf8-header": func(t *testing.T, r Request) bool {
			return one(t, r, "X-Customer-Name") == "Renée Dvořák-Müller 山田 🚀" && one(t, r, "X-Price") == "12,50 €"
		},
		"repeated-headers": func(t *testing.T, r Request) bool {
			return slices.Equal(r.Values("X-Tag"), []string{"first", "second, with a comma", "", "first", "last"}) &&
				len(r.Values("Cookie")) == 3 && len(r.Values("Accept")) == 3
		},
		"odd-query": func(t *testing.T, r Request) bool {
			_, query, _ := strings.Cut(r.Target, "?")
			return strings.HasPrefix(query, "a=1&a=2&&b=&=c&d=%20+&e=a%2Fb;f&g&") && strings.Contains(query, "?") &&
				strings.Contains(query, "%E2%82%AC") && strings.Contains(query, "%e2%82%ac")
		},
		"percent-path": func(t *testing.T, r Request) bool {
			return r.Target == "/fallback/a%2Fb/%E2%82%AC/c%20d/..%2f/;v=1/~x"
		},
		"dot-segments": func(t *testing.T, r Request) bool { return r.Target == "/fallback/a/../b/./c//d" },
		"chunked-json": func(t *testing.T, r Request) bool {
			return r.Chunked && json.Valid(r.Body) && bytes.Contains(r.Raw, []byte("\r\n1f;trace=1;sig=\"a b\"\r\n"))
		},
		"chunked-trailer": func(t *testing.T, r Request) bool {
			return r.Chunked && one(t, r, "Trailer") == "Content-Digest" && len(r.Trailer) == 1
		},
		"put-json": func(t *testing.T, r Request) bool { return r.Method == "PUT" && json.Valid(r.Body) },
		"patch-merge": func(t *testing.T, r Request) bool {
			return r.Method == "PATCH" && json.Valid(r.Body) &&
				one(t, r, "Content-Type") == "application/merge-patch+json"
		},
		"delete-with-body": func(t *testing.T, r Request) bool { return r.Method == "DELETE" && json.Valid(r.Body) },
		"long-content-type": func(t *testing.T, r Request) bool {
			_, _, err := mime.ParseMediaType(one(t, r, "Content-Type"))
			return err == nil && len(one(t, r, "Content-Type")) == 330
		},
		"long-header-name": func(t *testing.T, r Request) bool {
			return slices.ContainsFunc(r.Header, func(f Field) bool { return len(f.Name) == 300 })
		},
		"many-headers": func(t *testing.T, r Request) bool {
			return len(r.Header) == 200 && len(r.Raw) > 20_000 && len(r.Raw) < 20_480
		},
		"soap-xml": func(t *testing.T, r Request) bool {
			return xml.Unmarshal(r.Body, new(struct{})) == nil && bytes.HasPrefix(r.Body, []byte("\ufeff<?xml")) &&
				bytes.Contains(r.Body, []byte("\r\n")) && strings.HasPrefix(one(t, r, "SOAPAction"), `"`)
		},
		"cloudevents-binary":     func(t *testing.T, r Request) bool { return one(t, r, "ce-specversion") == "1.0" },
		"cloudevents-structured": func(t *testing.T, r Request) bool { return json.Valid(r.Body) },
		"graphql":                func(t *testing.T, r Request) bool { return json.Valid(r.Body) },
		"ndjson": func(t *testing.T, r Request) bool {
			for line := range bytes.Lines(r.Body) {
				if len(line) > 1 && !json.Valid(line) {
					return false
				}
			}
			return bytes.HasSuffix(r.Body, []byte("\n"))
		},
		"protobuf-binary": func(t *testing.T, r Request) bool {
			for b := range 256 {
				if bytes.IndexByte(r.Body, byte(b)) < 0 {
					return false
				}
			}
			return one(t, r, "Content-Type") == "application/x-protobuf"
		},
		"json-looks-base64": func(t *testing.T, r Request) bool {
			_, err := base64.StdEncoding.DecodeString(string(r.Body))
			return string(r.Body) == "true" && err == nil
		},
		"idempotency-key": func(t *testing.T, r Request) bool {
			return one(t, r, "Idempotency-Key") == `"8e03978e-40d5-43dd-bc93-6894a57f9324"` &&
				one(t, r, "traceparent") != "" && one(t, r, "tracestate") != ""
		},
		"authorization": func(t *testing.T, r Request) bool { return one(t, r, "Cookie") != "" },
		"expect-continue": func(t *testing.T, r Request) bool {
			return one(t, r, "Expect") == "100-continue" &&
				len(r.Body) > 1024
		},
		// What is special about these is in TestSignatures.
		"github-push":         func(t *testing.T, r Request) bool { return json.Valid(r.Body) && len(r.Body) > 8_000 },
		"shopify-order":       func(t *testing.T, r Request) bool { return json.Valid(r.Body) },
		"slack-slash-command": func(t *testing.T, r Request) bool { return one(t, r, "Content-Type") != "" },
		"standard-webhooks":   func(t *testing.T, r Request) bool { return json.Valid(r.Body) },
		"stripe-event": func(t *testing.T, r Request) bool {
			return json.Valid(r.Body) && bytes.HasPrefix(r.Body, []byte("{\n  \"id\""))
		},
		"twilio-form": func(t *testing.T, r Request) bool { return strings.Contains(r.Target, "?") },
	}
	for _, r := range All() {
		t.Run(r.Name, func(t *testing.T) {
			if is := special[r.Name]; is == nil {
				t.Error("nothing is checked about this request")
			} else if !is(t, r) {
				t.Errorf("not what README.md says:\n%.300q", r.Raw)
			}
		})
	}
}

func TestReadmeNamesEveryRequest(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllSubmatch(readme, -1) {
		got = append(got, string(m[1]))
	}
	for _, r := range All() {
		want = append(want, r.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the table of README.md names\n%q, want\n%q", got, want)
	}
}

func TestParseIsStrict(t *testing.T) {
	for _, raw := range []string{
		"",
		"GET / HTTP/1.1\r\n",                                                // no end of the header
		"GET / HTTP/1.1\nHost: x\r\n\r\n",                                   // bare LF
		"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",                                 // bare CR
		"GET / HTTP/1.0\r\n\r\n",                                            // version
		"GET  / HTTP/1.1\r\n\r\n",                                           // two spaces
		"GET http://x/ HTTP/1.1\r\n\r\n",                                    // absolute form
		"GET /\xe9 HTTP/1.1\r\n\r\n",                                        // raw byte in the target
		"G@T / HTTP/1.1\r\n\r\n",                                            // method
		"GET / HTTP/1.1\r\nA : b\r\n\r\n",                                   // space before the colon
		"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",                              // folded line
		"GET / HTTP/1.1\r\nA\r\n\r\n",                                       // no colon
		"GET / HTTP/1.1\r\nA: \x00\r\n\r\n",                                 // control byte
		"GET / HTTP/1.1\r\n\r\nx",                                           // bytes after the end
		"PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\nx",                      // body too short
		"PUT / HTTP/1.1\r\nContent-Length: 1\r\n\r\nxy",                     // body too long
		"PUT / HTTP/1.1\r\nContent-Length: +1\r\n\r\nx",                     // no number
		"PUT / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\nx", // framed twice
		"PUT / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"PUT / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",               // no end of the trailer
		"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nx\r\n0\r\n\r\n", // chunk too short
		"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n\r\n",           // no size
		"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nx",          // bytes after the end
	} {
		if r, err := Parse("strict", []byte(raw)); err == nil {
			t.Errorf("%q parses as %+v", raw, r)
		}
	}
}

func TestValues(t *testing.T) {
	r, err := Parse("values", []byte("GET / HTTP/1.1\r\nA:1\r\na: \t2 \t\r\nB: 3\r\nA:\r\n\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.Values("a"), []string{"1", "2", ""}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := r.Values("c"); got != nil {
		t.Errorf("%q, want none", got)
	}
}
