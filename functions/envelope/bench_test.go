package envelope

import (
	"bytes"
	"io"
	"net/http"
	"testing"
)

// BenchmarkCapture is what a request costs before it is published: read, identified and encoded.
func BenchmarkCapture(b *testing.B) {
	in := benchmarkRequest()
	for _, size := range []int{256, 16 << 10} {
		body := make([]byte, size)
		b.Run(byteCount(size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := &http.Request{
					Method: in.Method, RequestURI: in.Target, Host: in.Host, Proto: in.Proto, RemoteAddr: in.Remote,
					Header: in.Header, ContentLength: int64(size), Body: io.NopCloser(bytes.NewReader(body)),
				}
				if _, err := Capture(r, in.Target, roomy); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func byteCount(n int) string {
	if n >= 1<<10 {
		return "16KiB"
	}
	return "256B"
}
