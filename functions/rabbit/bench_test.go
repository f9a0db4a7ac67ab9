package rabbit

import (
	"net/http"
	"testing"
	"time"

	"fallback/functions/envelope"
)

// BenchmarkMessage is what it costs to make a captured request's message: its metadata was encoded at capture.
func BenchmarkMessage(b *testing.B) {
	sealed, err := envelope.Capture(&http.Request{
		Method: http.MethodPost, Host: "api.example.com", Proto: "HTTP/1.1", RemoteAddr: "203.0.113.7:51234",
		Header: http.Header{"Accept": {"*/*"}, "Content-Type": {"application/json"}, "User-Agent": {"bench"}},
	}, "/orders/42?x=1", make([]byte, 256), time.Now()).Seal(1 << 16)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		_ = toMessage(sealed, "")
	}
}
