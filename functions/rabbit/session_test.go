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
