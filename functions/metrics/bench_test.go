package metrics

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"fallback/functions/config"
	"fallback/functions/envelope"
	"fallback/functions/httpapi"
)

// BenchmarkDoor is the door before a store that says yes at once, without metrics and with them: the difference is what
// counting costs.
func BenchmarkDoor(b *testing.B) {
	for _, row := range []struct {
		name     string
		answered func(string, time.Duration)
	}{{"uncounted", nil}, {"counted", NewServer(config.Config{}).Answered}} {
		b.Run(row.name, func(b *testing.B) {
			d, err := httpapi.New(httpapi.Options{
				Prefix: "/fallback", Methods: []string{"POST"}, Queue: "Queue",
				Limits:  httpapi.Limits{Body: 1 << 20, Header: 64 << 10},
				Timeout: 5 * time.Second, InFlight: 1000, BytesInHand: 1 << 30, Log: slog.New(slog.DiscardHandler),
				Answered: row.answered,
			}, yes{})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				w := nowhere{http.Header{}}
				for p.Next() {
					d.ServeHTTP(w, &http.Request{
						Method: "POST", RequestURI: "/fallback/orders", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
						Host:   "h",
						Header: http.Header{}, Body: io.NopCloser(strings.NewReader("0123456789")), ContentLength: 10,
					})
				}
			})
		})
	}
}

// TestAnsweredAllocatesNothing holds what the hot path rests on.
func TestAnsweredAllocatesNothing(t *testing.T) {
	s := NewServer(config.Config{})
	for _, outcome := range []string{"accepted", "queue-full", "overloaded"} {
		if n := testing.AllocsPerRun(100, func() { s.Answered(outcome, time.Millisecond) }); n != 0 {
			t.Errorf("%s: %v allocations, want none", outcome, n)
		}
	}
}

// yes is a store.
type yes struct{}

func (yes) Publish(context.Context, envelope.Sealed) error { return nil }
func (yes) Ready(context.Context) error                    { return nil }

// nowhere is where answers go.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) WriteHeader(int)             {}
func (n nowhere) Write(p []byte) (int, error) { return len(p), nil }
