package rabbit

import (
	"encoding/binary"
	"fmt"
	"math"
)

const (
	// HeaderUnreadable marks a message whose own headers the client library cannot read. They are not there, and this
	// says why, for people. The message keeps its id, its other properties and its body.
	HeaderUnreadable = "fallback-unreadable"
	// HeaderUnread has the message's own headers instead: the bytes of the AMQP table, as the broker sent them. It is
	// missing where they would not fit into a frame.
	HeaderUnread = "fallback-unreadable-headers"
)

// What the client library reads in a table. It counts a name once that a table has twice, which AMQP forbids; here
// each counts.
const (
	deepestTable = 32   // within the first
	mostElements = 8192 // of one table or list
)

// Why it does not read one.
var (
	tooDeep   = fmt.Sprintf("its headers are nested more than %d deep", deepestTable)
	tooMany   = fmt.Sprintf("its headers have more than %d elements in one list or table", mostElements)
	tooLarge  = "its headers do not fit into a frame"
	malformed = "its headers are no AMQP table that we can read"
	notKept   = "; they are too large to be kept"
)

const (
	// fixedSize is what each content header begins with: class (2 bytes), weight (2), size of the body (8), flags (2).
	fixedSize = 14
	// tableWithin are the bytes in which the table begins: a content type and an encoding may come before it, and its
	// length.
	tableWithin = fixedSize + 256 + 256 + 4
	// longestAfter is for what comes after it: eight short strings, a time, and two single bytes.
	longestAfter = 8*256 + 8 + 2
	// spareSize is left in a frame, for the headers that a message gets when it is moved.
	spareSize = 8 << 10
)

// The flags of the properties, in the order in which they follow.
const (
	hasContentType     = 1 << 15
	hasContentEncoding = 1 << 14
	hasHeaders         = 1 << 13
)

// sizesAfter are those of the properties behind the table, by their flags from the highest: delivery mode, priority,
// correlation id, reply to, expiration, message id, timestamp, type, user id, app id, and one that is reserved. 0 is a
// short string.
var sizesAfter = [...]int{1, 1, 0, 0, 0, 0, 8, 0, 0, 0, 0}

// findTable is where a content header's table begins, behind its length, and that length. The table itself may be cut
// off.
func findTable(payload []byte) (at int, length int64, found bool) {
	if len(payload) < fixedSize {
		return 0, 0, false
	}
	flags, rest := flagsOf(payload), payload[fixedSize:]
	for _, flag := range [...]uint16{hasContentType, hasContentEncoding} {
		if flags&flag == 0 {
			continue
		}
		if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
			return 0, 0, false
		}
		rest = rest[1+int(rest[0]):]
	}
	if flags&hasHeaders == 0 || len(rest) < 4 {
		return 0, 0, false
	}
	return len(payload) - len(rest) + 4, int64(binary.BigEndian.Uint32(rest)), true
}

func flagsOf(payload []byte) uint16 { return binary.BigEndian.Uint16(payload[fixedSize-2:]) }

// sizeAfter is how long the properties behind the table are. Not ok, they are cut off.
func sizeAfter(flags uint16, rest []byte) (size int, ok bool) {
	for i, fixed := range sizesAfter {
		if flags&(hasHeaders>>(i+1)) == 0 {
			continue
		}
		if fixed == 0 {
			if size >= len(rest) {
				return 0, false
			}
			fixed = 1 + int(rest[size])
		}
		if size += fixed; size > len(rest) {
			return 0, false
		}
	}
	return size, true
}

// mayPass says whether a content header may go to the library: it can read it, or should refuse it, because it is
// malformed in a way that has no cure.
func mayPass(frame []byte) bool {
	payload := frame[headSize : len(frame)-1]
	at, length, found := findTable(payload)
	if !found || length > int64(len(payload)-at) {
		return true
	}
	return checkTable(payload[at:at+int(length)], 0) == ""
}

// mend is the frame itself where it may pass, or one in its place: the same, but for the header table. There, our
// mark is, and the bytes of the old table, where they fit into a frame with room for more.
func mend(frame []byte, largest int) []byte {
	payload, end := frame[headSize:len(frame)-1], frame[len(frame)-1]
	at, length, found := findTable(payload)
	if !found || length > int64(len(payload)-at) {
		return frame
	}
	table, rest := payload[at:at+int(length)], payload[at+int(length):]
	why := checkTable(table, 0)
	size, ok := sizeAfter(flagsOf(payload), rest)
	if why == "" || !ok {
		return frame
	}
	if len(frame)+spareSize > largest {
		why, table = why+notKept, nil
	}
	return withMark(frame[:headSize+at], rest[:size], end, why, table)
}

// withMark is a content header's frame: what came before the table and its length, a table with our mark, what came
// after it.
func withMark(before, rest []byte, end byte, why string, table []byte) []byte {
	frame := append(make([]byte, 0, len(before)+len(table)+len(rest)+256), before...)
	begin := len(frame)
	frame = append(appendName(frame, HeaderUnreadable), 'S')
	frame = append(binary.BigEndian.AppendUint32(frame, uint32(len(why))), why...)
	if table != nil {
		frame = append(appendName(frame, HeaderUnread), 'x')
		frame = append(binary.BigEndian.AppendUint32(frame, uint32(len(table))), table...)
	}
	binary.BigEndian.PutUint32(frame[begin-4:], uint32(len(frame)-begin))
	frame = append(append(frame, rest...), end)
	binary.BigEndian.PutUint32(frame[3:], uint32(len(frame)-aroundPayload))
	return frame
}

func appendName(b []byte, name string) []byte { return append(append(b, byte(len(name))), name...) }

// checkTable is empty for a table that the library reads.
func checkTable(b []byte, depth int) (why string) {
	for n := 0; len(b) > 0; n++ {
		name := 1 + int(b[0])
		switch {
		case n == mostElements:
			return tooMany
		case len(b) < name:
			return malformed
		}
		if b, why = checkField(b[name:], depth); why != "" {
			return why
		}
	}
	return ""
}

func checkArray(b []byte, depth int) (why string) {
	for n := 0; len(b) > 0; n++ {
		if n == mostElements {
			return tooMany
		}
		if b, why = checkField(b, depth); why != "" {
			return why
		}
	}
	return ""
}

// checkField looks at the field that b begins with, and returns what follows it.
func checkField(b []byte, depth int) (rest []byte, why string) {
	if len(b) == 0 {
		return nil, malformed
	}
	kind, b := b[0], b[1:]
	size := int64(0)
	switch kind {
	case 'V':
	case 't', 'b', 'B':
		size = 1
	case 's', 'u':
		size = 2
	case 'I', 'i', 'f':
		size = 4
	case 'D':
		size = 5
	case 'l', 'd', 'T':
		size = 8
	case 'S', 'x', 'A', 'F':
		if len(b) < 4 {
			return nil, malformed
		}
		size, b = int64(binary.BigEndian.Uint32(b)), b[4:]
	default:
		return nil, malformed
	}
	if size > math.MaxInt32 || size > int64(len(b)) {
		return nil, malformed
	}
	inner, rest := b[:size], b[size:]
	switch {
	case kind != 'A' && kind != 'F':
		return rest, ""
	case depth == deepestTable:
		return nil, tooDeep
	case kind == 'A':
		return rest, checkArray(inner, depth+1)
	default:
		return rest, checkTable(inner, depth+1)
	}
}
