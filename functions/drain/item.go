package drain

import (
	"crypto/sha256"
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"
	"time"

	"fallback/functions/envelope"
	"fallback/functions/target"
)

// item is a request that was delivered to us and is not settled. The loop owns it, but for delivery while it is
// replayed, and for all of it while it is settled.
type item struct {
	delivery    Delivery
	request     *envelope.Request
	unread      error // why the message cannot be read as a request
	key         string
	fingerprint uint64 // of what it says
	group       group
	size        int
	marks

	round, epoch       int // of the feeder that it came by
	taken, sent, heard time.Time
	turn               time.Time // it is kept until then
	verdict            target.Verdict
	again              bool      // it was ruled on before, and is not sent again
	acked              bool      // and taken off the queue
	overdue            bool      // it has been in flight for too long
	doubtful           bool      // its refusal may be an outage's
	cleared            time.Time // when one was sent that was accepted, of its group and after it was refused
}

// open reads a delivery.
func open(d Delivery, now time.Time) *item {
	request, err := d.Request()
	it := &item{delivery: d, request: request, unread: err, size: d.Size(), taken: now, marks: marksOf(d)}
	if err != nil {
		return it
	}
	it.group, it.fingerprint = groupOf(request), fingerprintOf(request)
	if it.key = request.ID; it.key == "" { // another program's: requeued, it is known by what it says only
		says := fmt.Appendf(nil, "%s %s\n%s", request.Method, request.Target, request.Body)
		it.key, request.ID = fmt.Sprintf("%x", sha256.Sum256(says)), d.Identify()
	}
	return it
}

// asked is how long the answer asks to wait; a second where it asks without saying how long, 0 where it does not.
func (it *item) asked() time.Duration {
	if it.verdict.After == 0 && it.verdict.Status == 429 {
		return time.Second
	}
	return it.verdict.After
}

// The headers of a message that was moved; [HeaderRedriven] is an operator's.
const (
	HeaderAttempt   = "fallback-attempt"     // replays tried so far
	HeaderAsides    = "fallback-asides"      // how often it was set aside without an attempt
	HeaderConflicts = "fallback-conflicts"   // attempts that were answered 409
	HeaderAlone     = "fallback-alone"       // it came back too often, and is replayed alone
	HeaderBadAt     = "fallback-bad-at"      // when the primary last did not take it: RFC 3339, UTC
	HeaderNotBefore = "fallback-not-before"  // the primary has asked not to be sent it sooner: RFC 3339, UTC
	HeaderReason    = "fallback-reason"      // why it is parked, for people
	HeaderStatus    = "fallback-status"      // of the primary's last answer; 0 if there was none
	HeaderParkedAt  = "fallback-parked-at"   // RFC 3339, UTC
	HeaderRedriven  = "fallback-redriven-at" // when an operator put it back: RFC 3339, UTC

	headerReturns = "x-delivery-count" // RabbitMQ's: how often it was delivered, and came back
)

// marks are what the headers of a message say, if it was moved before.
type marks struct {
	attempts  int
	asides    int
	conflicts int
	badAt     time.Time
	notBefore time.Time
	redriven  time.Time
	reason    string // it is to be parked, for this
	alone     bool
	returns   int
}

// Attempts is how many replays of a message have been tried, by its headers.
func Attempts(d interface{ Header(name string) string }) int { return number(d.Header(HeaderAttempt)) }

func marksOf(d Delivery) marks {
	return marks{
		attempts: Attempts(d), asides: number(d.Header(HeaderAsides)), conflicts: number(d.Header(HeaderConflicts)),
		badAt: moment(d.Header(HeaderBadAt)), notBefore: moment(d.Header(HeaderNotBefore)),
		redriven: moment(d.Header(HeaderRedriven)),
		reason:   d.Header(HeaderReason), alone: d.Header(HeaderAlone) != "", returns: number(d.Header(headerReturns)),
	}
}

// headers are those of the marks; a nil value takes a header off.
func (m marks) headers() map[string]any {
	h := map[string]any{
		HeaderAttempt: int64(m.attempts), HeaderAsides: nil, HeaderConflicts: nil, HeaderBadAt: nil,
		HeaderNotBefore: nil, HeaderReason: nil, HeaderAlone: nil,
	}
	if m.asides > 0 {
		h[HeaderAsides] = int64(m.asides)
	}
	if m.conflicts > 0 {
		h[HeaderConflicts] = int64(m.conflicts)
	}
	if !m.badAt.IsZero() {
		h[HeaderBadAt] = stamp(m.badAt)
	}
	if !m.notBefore.IsZero() {
		h[HeaderNotBefore] = stamp(m.notBefore)
	}
	if m.reason != "" {
		h[HeaderReason] = m.reason
	}
	if m.alone {
		h[HeaderAlone] = int64(1)
	}
	return h
}

// Fresh are the headers of a message that an operator puts back on the queue: nothing of what became of it counts any
// more.
func Fresh(now time.Time) map[string]any {
	return map[string]any{
		HeaderAttempt: nil, HeaderAsides: nil, HeaderConflicts: nil, HeaderAlone: nil, HeaderBadAt: nil,
		HeaderNotBefore: nil,
		HeaderReason:    nil, HeaderStatus: nil, HeaderParkedAt: nil, HeaderRedriven: now.UTC().Format(time.RFC3339),
	}
}

// number is 0 for what is none, and a million at most.
func number(s string) int {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return int(min(max(n, 0), 1<<20))
}

func moment(s string) time.Time {
	t, _ := time.Parse(time.RFC3339, s)
	return t
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

var seed = maphash.MakeSeed()

// fingerprintOf tells requests apart that have the same id: another program may give one to many.
func fingerprintOf(r *envelope.Request) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, part := range []string{r.Method, r.Target} {
		_, _ = h.WriteString(part)
		_ = h.WriteByte(0)
	}
	_, _ = h.Write(r.Body)
	return h.Sum64()
}

// groupOf is the first segment of the path, and what tells who sends.
func groupOf(r *envelope.Request) group {
	path, _, _ := strings.Cut(r.Target, "?")
	first, _, _ := strings.Cut(strings.TrimLeft(path, "/"), "/")
	var h maphash.Hash
	h.SetSeed(seed)
	_, _ = h.WriteString(first)
	for _, name := range envelope.Credentials {
		for _, value := range r.Header[name] {
			_ = h.WriteByte(0)
			_, _ = h.WriteString(value)
		}
	}
	return group(h.Sum64())
}
