//go:build e2e

package e2e

import (
	"context"
	"net/http"
	"testing"
	"time"

	"fallback/functions/envelope"
	"fallback/functions/rabbit"
	"fallback/functions/topology"
)

// BenchmarkPublish is one publish of a captured request and its confirm on the real broker, with 128 in flight for each
// core.
func BenchmarkPublish(b *testing.B) {
	publisher := rabbit.NewPublisher(rabbit.Options{
		URL: broker.VHost(b).URL(topology.Publisher), Queue: topology.DefaultQueue, Channels: 4,
	})
	defer publisher.Close()
	request, err := envelope.Capture(&http.Request{
		Method: http.MethodPost, Host: "api.example.com", Proto: "HTTP/1.1", RemoteAddr: "203.0.113.7:51234",
		Header: http.Header{"Accept": {"*/*"}, "Content-Type": {"application/json"}, "User-Agent": {"bench"}},
	}, "/orders/42?x=1", make([]byte, 256), time.Now()).Seal(1 << 16)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetParallelism(128)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			err := publisher.Publish(ctx, request)
			cancel()
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
}
