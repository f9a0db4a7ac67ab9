// Package corpus holds real-life HTTP requests as the raw bytes a client puts
// on the wire, one file each, for the tests of fidelity: what comes off the
// queue must equal what went in, byte for byte.
//
// The files are the truth, as captured traffic would be; README.md says what
// each of them stands for. One request is too big for a file and is generated:
// [OneMebibyte].
package corpus

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// The secrets the signatures in the corpus are made with. They are for tests
// and guard nothing.
const (
	// Secret is the key of every signature but Stripe's: GitHub, Shopify,
	// Slack, Twilio (there it is the auth token), Standard Webhooks (there it
	// is the decoded secret) and the JSON Web Token of the bearer.
	Secret = "fallback-test-secret"

	// StripeSecret is the endpoint secret of stripe-event. Stripe takes it as
	// it stands, prefix and all, as the key.
	StripeSecret = "whsec_test_fallback"

	// StandardWebhooksSecret is Secret in the form the libraries of Standard
	// Webhooks take: the prefix, then the key in base64.
	StandardWebhooksSecret = "whsec_" + "ZmFsbGJhY2stdGVzdC1zZWNyZXQ="
)

// Host is the Host of every request, and Origin is where their senders believe
// they send them: Twilio signs Origin + Request.Target.
const (
	Host   = "fallback.example.com"
	Origin = "https://" + Host
)

// NameField is the header field in which each request carries its own name.
const NameField = "Fallback-Corpus"

// OneMebibyte is the name of the one request that is not a file: its body is
// exactly 1048576 bytes that do not compress.
const OneMebibyte = "one-mebibyte"

//go:embed *.http
var files embed.FS

// Field is a header or trailer field: the name as on the wire, the value as on
// the wire without the white space around it. Neither need be UTF-8.
type Field struct {
	Name, Value string
}

// Request is one request of the corpus, parsed from its raw bytes without
// net/http, so that the tests do not judge net/http by itself.
type Request struct {
	Name    string  // unique in the corpus, and the value of NameField
	Raw     []byte  // the whole request as on the wire
	Method  string  // as on the request line
	Target  string  // as on the request line
	Header  []Field // in order, names as on the wire
	Body    []byte  // after de-chunking; nil without Content-Length and Transfer-Encoding
	Trailer []Field // in order, names as on the wire
	Chunked bool    // whether the body came in chunks
}

// All returns every request of the corpus: the files in name order, then
// OneMebibyte. Each call returns requests of its own, free to be changed. It
// panics if a file is not a request, which the tests of this package rule out.
func All() []Request {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(fmt.Sprintf("corpus: %v", err))
	}
	all := make([]Request, 0, len(entries)+1)
	add := func(name string, raw []byte) {
		r, err := Parse(name, raw)
		if err != nil {
			panic(fmt.Sprintf("corpus: %s: %v", name, err))
		}
		all = append(all, r)
	}
	for _, e := range entries {
		raw, err := files.ReadFile(e.Name())
		if err != nil {
			panic(fmt.Sprintf("corpus: %v", err))
		}
		add(strings.TrimSuffix(e.Name(), ".http"), raw)
	}
	add(OneMebibyte, oneMebibyte())
	return all
}

// Values returns all values of a header field, in order; the name matches
// whatever its case.
func (r Request) Values(name string) []string {
	return values(r.Header, name)
}

func values(fields []Field, name string) []string {
	var vs []string
	for _, f := range fields {
		if strings.EqualFold(f.Name, name) {
			vs = append(vs, f.Value)
		}
	}
	return vs
}

// oneMebibyte makes the request OneMebibyte, the same bytes each time: ChaCha8
// is specified down to its output.
func oneMebibyte() []byte {
	const size = 1 << 20
	head := "POST /fallback/blobs HTTP/1.1\r\n" +
		"Host: " + Host + "\r\n" +
		"User-Agent: curl/8.14.1\r\n" +
		"Accept: */*\r\n" +
		"Content-Type: application/octet-stream\r\n" +
		"Content-Length: " + strconv.Itoa(size) + "\r\n" +
		NameField + ": " + OneMebibyte + "\r\n\r\n"
	raw := make([]byte, len(head)+size)
	copy(raw, head)
	var seed [32]byte
	copy(seed[:], OneMebibyte)
	_, _ = rand.NewChaCha8(seed).Read(raw[len(head):]) // never fails
	return raw
}

// Parse reads raw as exactly one HTTP/1.1 request in origin form. It is strict:
// what a lenient server might let pass (bare line feeds, folded lines, white
// space before a colon, both framings at once, bytes after the end) is an error.
func Parse(name string, raw []byte) (Request, error) {
	r := Request{Name: name, Raw: raw}
	line, rest, err := cutLine(raw)
	if err != nil {
		return Request{}, fmt.Errorf("request line: %w", err)
	}
	parts := strings.Split(line, " ")
	if len(parts) != 3 {
		return Request{}, fmt.Errorf("request line %q has not three parts", line)
	}
	r.Method, r.Target = parts[0], parts[1]
	switch {
	case !isToken(r.Method):
		return Request{}, fmt.Errorf("method %q is no token", r.Method)
	case !isTarget(r.Target):
		return Request{}, fmt.Errorf("target %q is not in origin form", r.Target)
	case parts[2] != "HTTP/1.1":
		return Request{}, fmt.Errorf("version %q", parts[2])
	}
	if r.Header, rest, err = cutFields(rest); err != nil {
		return Request{}, fmt.Errorf("header: %w", err)
	}

	lengths, codings := r.Values("Content-Length"), r.Values("Transfer-Encoding")
	switch {
	case len(lengths) > 1 || len(codings) > 1 || len(lengths) == 1 && len(codings) == 1:
		return Request{}, errors.New("the body is framed more than once")
	case len(codings) == 1:
		if codings[0] != "chunked" {
			return Request{}, fmt.Errorf("transfer coding %q", codings[0])
		}
		r.Chunked = true
		if r.Body, rest, err = cutChunks(rest); err != nil {
			return Request{}, fmt.Errorf("chunks: %w", err)
		}
		if r.Trailer, rest, err = cutFields(rest); err != nil {
			return Request{}, fmt.Errorf("trailer: %w", err)
		}
		if len(rest) > 0 {
			return Request{}, fmt.Errorf("%d bytes after the trailer", len(rest))
		}
	case len(lengths) == 1:
		n, err := strconv.ParseUint(lengths[0], 10, 31)
		if err != nil {
			return Request{}, fmt.Errorf("content length: %w", err)
		}
		if n != uint64(len(rest)) {
			return Request{}, fmt.Errorf("content length %d, but %d bytes of body", n, len(rest))
		}
		r.Body = rest
	case len(rest) > 0:
		return Request{}, fmt.Errorf("%d bytes after a header that announces no body", len(rest))
	}
	return r, nil
}

// cutLine cuts a line off b at its CRLF. No other CR or LF may come before it.
func cutLine(b []byte) (line string, rest []byte, err error) {
	i := bytes.IndexAny(b, "\r\n")
	if i < 0 {
		return "", nil, errors.New("a line without an end")
	}
	if !bytes.HasPrefix(b[i:], []byte("\r\n")) {
		return "", nil, fmt.Errorf("a bare CR or LF after %q", b[:i])
	}
	return string(b[:i]), b[i+2:], nil
}

// cutFields cuts field lines off b, with the empty line that ends them.
func cutFields(b []byte) (fields []Field, rest []byte, err error) {
	for {
		var line string
		if line, b, err = cutLine(b); err != nil {
			return nil, nil, err
		}
		if line == "" {
			return fields, b, nil
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) {
			return nil, nil, fmt.Errorf("field line %q", line)
		}
		value = strings.Trim(value, " \t")
		for i := range len(value) {
			if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
				return nil, nil, fmt.Errorf("field %s: control byte %#02x", name, c)
			}
		}
		fields = append(fields, Field{name, value})
	}
}

// cutChunks cuts chunks off b, up to and with the line of the last, empty
// chunk, and returns their data put together. Chunk extensions are dropped.
func cutChunks(b []byte) (data, rest []byte, err error) {
	data = []byte{}
	for {
		var line string
		if line, b, err = cutLine(b); err != nil {
			return nil, nil, err
		}
		digits, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(digits, 16, 31)
		if err != nil {
			return nil, nil, fmt.Errorf("chunk size: %w", err)
		}
		if n == 0 {
			return data, b, nil
		}
		if uint64(len(b)) < n+2 || string(b[n:n+2]) != "\r\n" {
			return nil, nil, fmt.Errorf("a chunk of %d bytes does not end there", n)
		}
		data = append(data, b[:n]...)
		b = b[n+2:]
	}
}

// isToken tells whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !alnum && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}

// isTarget tells whether s is a path, maybe with a query, in visible ASCII.
func isTarget(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return strings.HasPrefix(s, "/")
}
