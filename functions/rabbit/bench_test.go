package rabbit

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"fallback/functions/envelope"
)

// BenchmarkMessage is what it costs to make a captured request's message: its metadata was encoded at capture.
func BenchmarkMessage(b *testing.B) {
	r, err := envelope.Capture(&http.Request{
		Method: http.MethodPost, Host: "api.example.com", Proto: "HTTP/1.1", RemoteAddr: "203.0.113.7:51234",
		Header:        http.Header{"Accept": {"*/*"}, "Content-Type": {"application/json"}, "User-Agent": {"bench"}},
		ContentLength: 256, Body: io.NopCloser(bytes.NewReader(make([]byte, 256))),
	}, "/orders/42?x=1", envelope.Limits{Body: 1 << 20, Header: 1 << 16})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		_ = toMessage(r, "")
	}
}
