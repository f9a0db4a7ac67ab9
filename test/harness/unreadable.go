package harness

import amqp "github.com/rabbitmq/amqp091-go"

// Unreadables are headers, by name, of messages that a broker takes and the client library cannot read: it closes the
// connection over them.
func Unreadables() map[string]amqp.Table {
	nested := amqp.Table{"end": true}
	for range 40 {
		nested = amqp.Table{"in": nested}
	}
	return map[string]amqp.Table{"nested-40": nested, "array-9000": {"many": make([]any, 9000)}}
}
