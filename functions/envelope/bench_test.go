package envelope

import (
	"net/http"
	"testing"
)

// BenchmarkCapture is what a request costs before it is published: identified and encoded.
func BenchmarkCapture(b *testing.B) {
	in := benchmarkRequest()
	body := make([]byte, 256)
	b.ReportAllocs()
	for b.Loop() {
		r := &http.Request{
			Method: in.Method, RequestURI: in.Target, Host: in.Host, Proto: in.Proto, RemoteAddr: in.Remote,
			Header: in.Header,
		}
		if _, err := Capture(r, in.Target, body, in.ReceivedAt).Seal(64 << 10); err != nil {
			b.Fatal(err)
		}
	}
}
