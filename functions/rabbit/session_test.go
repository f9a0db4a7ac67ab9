package rabbit

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// TestReturnsAfterClose holds that returns are found, and asking for them ends, also when the channel has been closed
// between a confirm and the look at its return.
func TestReturnsAfterClose(t *testing.T) {
	t.Parallel()
	returns := make(chan amqp.Return, 2)
	returns <- amqp.Return{MessageId: "a"}
	returns <- amqp.Return{MessageId: "b"}
	ch := &channel{returns: returns, returned: map[string]amqp.Return{}}
	close(returns)
	for _, row := range []struct {
		id   string
		want bool
	}{{"x", false}, {"b", true}, {"b", false}, {"a", true}} {
		if got := ch.wasReturned(row.id); got != row.want {
			t.Errorf("%s: got %v, want %v", row.id, got, row.want)
		}
	}
}
