package rabbit

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// TestReturnsAfterClose holds that returns are found, and asking for them ends, also when the channel has been closed
// between a confirm and the look at its return.
func TestReturnsAfterClose(t *testing.T) {
	t.Parallel()
	returns := make(chan amqp.Return, 3)
	returns <- amqp.Return{MessageId: "a", RoutingKey: "q"}
	returns <- amqp.Return{MessageId: "b", RoutingKey: "q"}
	returns <- amqp.Return{MessageId: "b", RoutingKey: "q"} // the same message, twice on its way
	ch := &channel{returns: returns, returned: map[returnKey]int{}}
	close(returns)
	for _, row := range []struct {
		queue, id string
		want      bool
	}{{"q", "x", false}, {"other", "b", false}, {"q", "b", true}, {"q", "b", true}, {"q", "b", false},
		{"q", "a", true}} {
		if got := ch.wasReturned(returnKey{row.queue, row.id}); got != row.want {
			t.Errorf("%s of %s: got %v, want %v", row.id, row.queue, got, row.want)
		}
	}
}

// TestFewChannels holds that few publishes share one channel, and many are spread over all.
func TestFewChannels(t *testing.T) {
	t.Parallel()
	s := &session{link: &link{wire: &wire{}}, channels: []*channel{{}, {}, {}, {}}}
	for _, row := range []struct {
		inFlight int64
		want     int
	}{{0, 1}, {16, 1}, {63, 1}, {64, 2}, {128, 3}, {512, 4}} {
		s.wire.batchHint.Store(row.inFlight)
		used := map[*channel]bool{}
		for range 12 {
			used[s.channel()] = true
		}
		if len(used) != row.want {
			t.Errorf("%d in flight: got %d channels, want %d", row.inFlight, len(used), row.want)
		}
	}
}
