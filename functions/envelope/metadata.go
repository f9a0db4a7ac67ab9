package envelope

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Version is the form of the metadata that this package writes. It changes when a reader of the old form would
// misunderstand the new one.
const Version = 1

// latin1 marks metadata in which each string stands for bytes, one code point (U+0000 to U+00FF) a byte. JSON strings
// are Unicode, header values and targets are bytes: where one of them is not UTF-8, all are written this way, so that
// none is altered.
const latin1 = "latin1"

// metadata is the JSON form of everything but the body, in the message's `fallback` header. Readers in any language
// need these names and nothing else.
type metadata struct {
	Version    int                 `json:"v"`
	Method     string              `json:"method"`
	Target     string              `json:"target"`
	Host       string              `json:"host"`
	Scheme     string              `json:"scheme"`
	Proto      string              `json:"proto"`
	Remote     string              `json:"remote"`
	Prefix     string              `json:"prefix,omitempty"`
	ReceivedAt time.Time           `json:"received_at"`
	Header     map[string][]string `json:"header"`
	Trailer    map[string][]string `json:"trailer,omitempty"`
	// Bodyless tells a message body that stands for an empty request body from one that was sent.
	Bodyless bool   `json:"bodyless"`
	Charset  string `json:"charset,omitempty"`
}

// Metadata returns everything but the body as JSON: v, method, target, host, scheme, proto, remote, received_at (RFC
// 3339, nanoseconds), header, bodyless, and where needed prefix, trailer and charset ("latin1": every string is bytes,
// one code point a byte). It is written by hand because it is on the way of every request; see BenchmarkMetadata for
// what encoding/json would take.
func (r *Request) Metadata() string {
	w := writer{bytewise: !r.isUTF8()}
	w.Grow(r.sizeHint())
	w.raw(`{"v":1,"method":`).str(r.Method)
	w.raw(`,"target":`).str(r.Target)
	w.raw(`,"host":`).str(r.Host)
	w.raw(`,"scheme":`).str(r.Scheme)
	w.raw(`,"proto":`).str(r.Proto)
	w.raw(`,"remote":`).str(r.Remote)
	if r.Prefix != "" {
		w.raw(`,"prefix":`).str(r.Prefix)
	}
	w.raw(`,"received_at":"`)
	var received [len(time.RFC3339Nano)]byte
	_, _ = w.Write(r.ReceivedAt.UTC().AppendFormat(received[:0], time.RFC3339Nano))
	w.raw(`","header":`).fields(r.Header)
	if len(r.Trailer) > 0 {
		w.raw(`,"trailer":`).fields(r.Trailer)
	}
	if len(r.Body) == 0 {
		w.raw(`,"bodyless":true`)
	} else {
		w.raw(`,"bodyless":false`)
	}
	if w.bytewise {
		w.raw(`,"charset":"latin1"`)
	}
	return w.raw(`}`).String()
}

// lenient takes what encoding/json takes, which reads the same in twice the time.
var lenient = json.JoinOptions(json.MatchCaseInsensitiveNames(true), jsontext.AllowDuplicateNames(true),
	jsontext.AllowInvalidUTF8(true))

// Decode is the way back from Metadata: a Request with the given message id and body. The message body of a bodyless
// request is not a request body and is dropped. Names of headers may be in any case, as another program writes them,
// and come out in the form that net/http has them in. The error says what cannot be read, and shows nothing of it.
func Decode(id, meta string, body []byte) (*Request, error) {
	var m metadata
	if err := json.Unmarshal([]byte(meta), &m, lenient); err != nil {
		return nil, fmt.Errorf("metadata of %s: %w", id, err)
	}
	if m.Version != Version {
		return nil, fmt.Errorf("metadata of %s has version %d, this program reads %d", id, m.Version, Version)
	}
	if m.Bodyless {
		body = nil
	}
	r := &Request{
		ID: id, Method: m.Method, Target: m.Target, Host: m.Host, Scheme: m.Scheme, Proto: m.Proto, Remote: m.Remote,
		Prefix: m.Prefix, ReceivedAt: CleanTime(m.ReceivedAt), Header: m.Header, Trailer: m.Trailer, Body: body,
	}
	switch m.Charset {
	case "":
	case latin1:
		if err := r.fromLatin1(); err != nil {
			return nil, fmt.Errorf("metadata of %s: %w", id, err)
		}
	default:
		return nil, fmt.Errorf("metadata of %s has charset %q, this program reads %q", id, m.Charset, latin1)
	}
	r.Header, r.Trailer = canonical(r.Header), canonical(r.Trailer)
	return r, nil
}

// CleanTime is t in UTC, or the zero time if its year has not four digits: another program may have written
// milliseconds for seconds, and such a time can neither be written as RFC 3339 nor say how old a request is.
func CleanTime(t time.Time) time.Time {
	t = t.UTC()
	if year := t.Year(); year < 0 || year > 9999 {
		return time.Time{}
	}
	return t
}

// canonical is h with its names as net/http looks them up. The values of names that differ in case only come together,
// in the order of the names as they were.
func canonical(h http.Header) http.Header {
	names := slices.Sorted(maps.Keys(h))
	if !slices.ContainsFunc(names, func(name string) bool { return http.CanonicalHeaderKey(name) != name }) {
		return h // as Capture wrote it
	}
	out := make(http.Header, len(h))
	for _, name := range names {
		key := http.CanonicalHeaderKey(name)
		out[key] = append(out[key], h[name]...)
	}
	return out
}

func (r *Request) isUTF8() bool {
	for _, s := range []string{r.Method, r.Target, r.Host, r.Scheme, r.Proto, r.Remote, r.Prefix} {
		if !utf8.ValidString(s) {
			return false
		}
	}
	return isUTF8(r.Header) && isUTF8(r.Trailer)
}

func isUTF8(h http.Header) bool {
	for name, values := range h {
		if !utf8.ValidString(name) {
			return false
		}
		for _, v := range values {
			if !utf8.ValidString(v) {
				return false
			}
		}
	}
	return true
}

// sizeHint is about what the metadata takes when nothing needs escaping.
func (r *Request) sizeHint() int {
	n := 256 + len(r.Target) + len(r.Host)
	for name, values := range r.Header {
		n += len(name) + 6
		for _, v := range values {
			n += len(v) + 3
		}
	}
	return n
}

var errNotLatin1 = errors.New("a string marked as latin1 has a character above U+00FF")

// fromLatin1 turns the code points of every string back into the bytes that they stand for.
func (r *Request) fromLatin1() error {
	var err error
	back := func(s string) string {
		b := make([]byte, 0, len(s))
		for _, c := range s {
			if c > 0xff {
				err = errNotLatin1
			}
			b = append(b, byte(c))
		}
		return string(b)
	}
	for _, s := range []*string{&r.Method, &r.Target, &r.Host, &r.Scheme, &r.Proto, &r.Remote, &r.Prefix} {
		*s = back(*s)
	}
	fields := func(h http.Header) http.Header {
		if h == nil {
			return nil
		}
		out := make(http.Header, len(h))
		for name, values := range h {
			bytes := make([]string, len(values))
			for i, v := range values {
				bytes[i] = back(v)
			}
			out[back(name)] = bytes
		}
		return out
	}
	r.Header, r.Trailer = fields(r.Header), fields(r.Trailer)
	return err
}

// writer appends JSON.
type writer struct {
	strings.Builder
	bytewise bool // each byte is a code point
}

func (w *writer) raw(s string) *writer {
	w.WriteString(s)
	return w
}

// fields writes {"Name":["value",...],...}.
func (w *writer) fields(h http.Header) *writer {
	w.WriteByte('{')
	first := true
	for name, values := range h {
		if !first {
			w.WriteByte(',')
		}
		first = false
		w.str(name)
		w.WriteString(`:[`)
		for i, v := range values {
			if i > 0 {
				w.WriteByte(',')
			}
			w.str(v)
		}
		w.WriteByte(']')
	}
	w.WriteByte('}')
	return w
}

// str writes a JSON string (RFC 8259, 7): only quotes, backslashes and control characters must be escaped.
func (w *writer) str(s string) {
	const hex = "0123456789abcdef"
	w.WriteByte('"')
	plain := 0 // s[plain:i] needs no change and has not been written
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && (c < utf8.RuneSelf || !w.bytewise) {
			continue
		}
		w.WriteString(s[plain:i])
		plain = i + 1
		switch {
		case c >= utf8.RuneSelf:
			w.WriteRune(rune(c))
		case c == '"' || c == '\\':
			w.WriteByte('\\')
			w.WriteByte(c)
		default:
			w.WriteString(`\u00`)
			w.WriteByte(hex[c>>4])
			w.WriteByte(hex[c&0xf])
		}
	}
	w.WriteString(s[plain:])
	w.WriteByte('"')
}
