package rabbit

import (
	"maps"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// besideHeaders is what the other properties may take of a frame, and what the broker adds when it moves a message
	// itself.
	besideHeaders = 6 << 10
	// longestText is how much of a text of ours is kept where there is no room.
	longestText = 200
)

// fit makes a message's headers fit into a frame: else the broker closes the connection over it, and the message could
// never be moved. ours are those that the move sets. First they are cut short, then those of other programs go, then
// what could not be read, and then ours but for the numbers. The request itself stays. A frame of 0 is no limit.
func fit(table amqp.Table, ours map[string]any, frame int) {
	fits := func() bool { return frame == 0 || tableSize(table)+besideHeaders <= frame }
	if fits() {
		return
	}
	for name := range ours {
		if text, ok := table[name].(string); ok && len(text) > longestText {
			table[name] = strings.ToValidUTF8(text[:longestText], "") + "..."
		}
	}
	for _, leaves := range []func(name string) bool{
		func(name string) bool { return !strings.HasPrefix(name, "fallback") },
		func(name string) bool { return name == HeaderUnreadable || name == HeaderUnread },
		func(name string) bool { _, text := ours[name].(string); return text },
	} {
		if fits() {
			return
		}
		maps.DeleteFunc(table, func(name string, _ any) bool { return leaves(name) })
	}
}

// tableSize is how many bytes a table takes in a frame, or a little more.
func tableSize(table amqp.Table) int {
	size := 4
	for name, value := range table {
		size += 1 + len(name) + valueSize(value)
	}
	return size
}

func valueSize(value any) int {
	switch v := value.(type) {
	case string:
		return 5 + len(v)
	case []byte:
		return 5 + len(v)
	case amqp.Table:
		return 1 + tableSize(v)
	case []any:
		size := 5
		for _, one := range v {
			size += valueSize(one)
		}
		return size
	default: // numbers and times
		return 9
	}
}
