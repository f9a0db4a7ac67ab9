package topology

// Limits of each queue, past which it refuses messages (and never drops one): the publisher gets a nack. In bytes, and
// in messages too, because before RabbitMQ 4.3 the bytes of headers are not counted. They are the same for all, since
// all that is on the main queue may have to wait on one of the others, when it is of a sender that the primary limits.
const (
	maxLength      = 1_000_000 // about 33 MB of the broker's memory
	maxLengthBytes = 4 << 30
)

// deliveryLimit is as good as none. The default of 20 deletes a message after 21 deliveries that were not acknowledged,
// an operator's look at it included, and -1 (none) is refused by RabbitMQ 3.10.
const deliveryLimit = 1_000_000

// Policy is the settings of one queue, by RabbitMQ's names for them: texts, and numbers that are int.
type Policy struct {
	Queue      string
	Definition map[string]any
}

// Policies are those of all queues, the main one's first. What is dead-lettered stays where it is until its next queue
// has it (at-least-once, which needs reject-publish: with drop-head the broker silently does less).
func (t Topology) Policies() []Policy {
	policies := []Policy{
		withLimits(t.Main, object{
			"delivery-limit": deliveryLimit, "dead-letter-strategy": "at-least-once",
			"dead-letter-exchange": "", "dead-letter-routing-key": t.Parked,
		}),
		withLimits(t.Parked, object{"delivery-limit": deliveryLimit}),
	}
	for _, r := range t.Retries {
		policies = append(policies, withLimits(r.Name, object{
			"message-ttl": int(r.TTL.Milliseconds()), "dead-letter-strategy": "at-least-once",
			"dead-letter-exchange": "", "dead-letter-routing-key": t.Main,
		}))
	}
	return policies
}

// withLimits adds what all have: a full queue refuses.
func withLimits(queue string, definition object) Policy {
	definition["max-length"], definition["max-length-bytes"], definition["overflow"] = maxLength, maxLengthBytes,
		"reject-publish"
	return Policy{queue, definition}
}
