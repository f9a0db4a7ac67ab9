package rabbit

import (
	"net/http"
	"testing"
	"time"

	"fallback/functions/envelope"
)

// BenchmarkMessage is what it costs to make a request's message.
func BenchmarkMessage(b *testing.B) {
	r := &envelope.Request{
		ID: "01a20262-fead-745d-a0dd-93831abf4e21", Method: "POST", Target: "/orders/42?x=1", Host: "api.example.com",
		Scheme: "https", Proto: "HTTP/1.1", Remote: "203.0.113.7:51234", ReceivedAt: time.Now().UTC(), Body: make([]byte, 256),
		Header: http.Header{"Accept": {"*/*"}, "Content-Type": {"application/json"}, "User-Agent": {"bench"}},
	}
	b.ReportAllocs()
	for b.Loop() {
		_ = toMessage(r, "")
	}
}
