package rabbit

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// BenchmarkFrames is what the filter costs, a delivery: as the client library reads them, and with the library.
func BenchmarkFrames(b *testing.B) {
	const deliveries = 2000
	for _, size := range []int{256, 64 << 10} {
		var stream []byte
		table := append(field(HeaderMetadata, 'S', long([]byte(strings.Repeat("m", 300)))),
			field("x-delivery-count", 'l', u64(1))...)
		body := make([]byte, size)
		for i := range deliveries {
			stream = append(stream, method(1, 60, 60, short("consumer"), u64(uint64(i+1)), []byte{0}, short(""),
				short("FallbackAPIQueue"))...)
			stream = append(stream, content(1, table, body)...)
		}
		for _, filter := range []bool{false, true} {
			wrap := func(conn net.Conn) net.Conn {
				if filter {
					return newFrames(conn)
				}
				return conn
			}
			b.Run(fmt.Sprintf("library/body=%d/filter=%v", size, filter), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					readAll(b, recorded(startFrame(), tuneFrame(frameSize), nil, openOKFrame(),
						method(1, 20, 11, long(nil)), append(method(1, 60, 21, short("consumer")), stream...)), wrap,
						deliveries)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*deliveries), "ns/delivery")
			})
			b.Run(fmt.Sprintf("alone/body=%d/filter=%v", size, filter), func(b *testing.B) {
				p := make([]byte, 4096)
				b.ReportAllocs()
				for b.Loop() {
					conn := wrap(reading{Reader: bytes.NewReader(stream)})
					for n, err := conn.Read(p); err == nil && n > 0; n, err = conn.Read(p) {
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*deliveries), "ns/delivery")
			})
		}
	}
}

func readAll(b *testing.B, recorded *recording, wrap func(net.Conn) net.Conn, n int) {
	conn, err := amqp.Open(wrap(recorded), amqp.Config{SASL: []amqp.Authentication{&amqp.PlainAuth{}},
		FrameSize: frameSize, Vhost: "/"})
	if err != nil {
		b.Fatal(err)
	}
	ch, err := conn.Channel()
	if err != nil {
		b.Fatal(err)
	}
	got, err := ch.Consume("q", "consumer", false, false, false, false, nil)
	if err != nil {
		b.Fatal(err)
	}
	for range n {
		if _, ok := <-got; !ok {
			b.Fatal("the connection was lost")
		}
	}
	_ = recorded.Close()
}
