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

// BenchmarkPublish is one publish and its confirm on the real broker, with 128 in flight for each core.
func BenchmarkPublish(b *testing.B) {
	publisher := rabbit.NewPublisher(rabbit.Options{
		URL: broker.VHost(b).URL(topology.Publisher), Queue: topology.DefaultQueue, Channels: 4,
	})
	defer publisher.Close()
	request := &envelope.Request{
		ID: "01a20262-fead-745d-a0dd-93831abf4e21", Method: "POST", Target: "/orders/42?x=1", Host: "api.example.com",
		Scheme: "https", Proto: "HTTP/1.1", Remote: "203.0.113.7:51234", ReceivedAt: time.Now().UTC(), Body: make([]byte, 256),
		Header: http.Header{"Accept": {"*/*"}, "Content-Type": {"application/json"}, "User-Agent": {"bench"}},
	}
	b.ReportAllocs()
	b.SetParallelism(128)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			if err := publisher.Publish(ctx, request); err != nil {
				b.Error(err)
			}
			cancel()
		}
	})
}
