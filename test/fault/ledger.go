package fault

import (
	"fmt"
	"hash/maphash"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"fallback/test/harness"
)

// ledger is what the senders know, and what has come out at the other end: the queue, or the primary and the parked
// queue behind it. It is kept outside the server and the drain. Its ids are the senders' own: one for each request.
type ledger struct {
	late time.Duration // an answer that took longer is late

	mu         sync.Mutex // guards what follows
	entries    map[uint64]*entry
	accepted   int
	open       int           // of the accepted, those that have come out nowhere
	arrivals   int           // of any request at the end of its way
	since      time.Time     // from then on the next arrival is waited for
	next       time.Time     // when it came; zero while it has not
	last       time.Time     // of the last 202, or when the gaps began to count
	gap        time.Duration // the longest between two of them
	slowest    time.Duration
	lateOnes   int
	excused    int
	unanswered int
	undialled  int
	answers    map[string]int // those that were no 202, by what they said
	unexpected int
	corrupt    int
	duplicated int
	examples   []string // of what is wrong, a few
}

// entry is one request.
type entry struct {
	sum     uint64
	message string // the message id of its 202; empty while there is none
	found   string // the message id it was found under
	cut     bool   // the connection was lost before an answer, or none came in time
	parked  bool   // where it was found first
	left    bool   // it was on a queue when the drain had ended
}

func newLedger(late time.Duration) *ledger {
	return &ledger{late: late, entries: map[uint64]*entry{}, answers: map[string]int{}}
}

var sumSeed = maphash.MakeSeed()

// checksum is over everything of a request that the senders choose. Headers that were added on the way are not looked
// at.
func checksum(method, target string, header http.Header, body []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(sumSeed)
	h.WriteString(method)
	h.WriteByte(0)
	h.WriteString(target)
	h.WriteByte(0)
	for _, name := range ownHeaders {
		for _, value := range header[name] {
			h.WriteString(value)
			h.WriteByte(0)
		}
		h.WriteByte(1) // no header holds this, nor a zero
	}
	h.Write(body)
	return h.Sum64()
}

// sending notes a request before its first byte is written: from now on it may turn up on the queue.
func (l *ledger) sending(id, sum uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[id] = &entry{sum: sum}
}

// record notes a 202 that was read to its end: from now on the request must be on the queue, under that message id.
func (l *ledger) record(id uint64, message string, took harness.Elapsed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[id]
	if e.found != "" && e.found != message {
		l.corrupt++
		l.example("request %d was accepted as %s and has come as %s", id, message, e.found)
	}
	e.message = message
	l.accepted++
	if e.found == "" {
		l.open++
	}
	now := time.Now()
	l.gap, l.last = max(l.gap, now.Sub(l.last)), now
	l.took(took)
}

// published notes a message that is not a sender's, and that the broker has confirmed: it must come out like what was
// accepted.
func (l *ledger) published(id uint64, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[id]
	e.message = message
	l.accepted++
	if e.found == "" {
		l.open++
	}
}

// undial notes that a connection to the server could not be made.
func (l *ledger) undial() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.undialled++
}

// refused notes any other answer: the request may be on the queue or not.
func (l *ledger) refused(answer string, took harness.Elapsed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers[answer]++
	l.took(took)
}

// broken notes that no answer came: the connection was lost, or the sender gave up, for which took is over the limit.
func (l *ledger) broken(id uint64, err error, took harness.Elapsed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[id].cut = true
	l.unanswered++
	l.took(took)
	if len(l.examples) < 10 {
		l.examples = append(l.examples, fmt.Sprintf("request %d: no answer in %s: %v", id, took, err))
	}
}

// tooSlow notes that no answer came to a sender which had taken too long to say something. The request may be on the
// queue.
func (l *ledger) tooSlow(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[id].cut = true
	l.excused++
}

// took takes in how long an answer took. One that is late because the sender was says nothing of the server.
func (l *ledger) took(e harness.Elapsed) {
	switch {
	case e.Over(l.late):
		l.lateOnes++
	case e.Took > l.late:
		l.excused++
		return
	}
	l.slowest = max(l.slowest, e.Took)
}

// delivered notes a request at the end of its way: read off the queue or, where there is a drain, taken by the primary.
// Known says whether it has one of the senders' ids.
func (l *ledger) delivered(id uint64, known bool, sum uint64, message string) {
	l.arrived(id, known, sum, message, false)
}

// parked notes a request on the parked queue.
func (l *ledger) parked(id uint64, known bool, sum uint64, message string) {
	l.arrived(id, known, sum, message, true)
}

func (l *ledger) arrived(id uint64, known bool, sum uint64, message string, parked bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.check(id, known, sum, message)
	if e == nil {
		return
	}
	l.arrivals++
	if now := time.Now(); l.next.IsZero() && !parked && now.After(l.since) {
		l.next = now
	}
	switch {
	case e.found != "" && ok:
		l.duplicated++
	case e.found == "":
		e.parked = parked
		if e.message != "" {
			l.open--
		}
	}
	e.found = message
}

// tried notes a request that has come to the primary and was not taken.
func (l *ledger) tried(id uint64, known bool, sum uint64, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.check(id, known, sum, message)
}

// isParked says whether a request has come out on the parked queue, and nowhere before.
func (l *ledger) isParked(id uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[id]
	return e != nil && e.parked
}

// leftOver notes a request that was still on a queue when the drain had ended.
func (l *ledger) leftOver(id uint64, known bool, sum uint64, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, _ := l.check(id, known, sum, message); e != nil {
		e.left = true
	}
}

// check is whose request it is, nil if it is nobody's, and whether it is as it was sent.
func (l *ledger) check(id uint64, known bool, sum uint64, message string) (e *entry, ok bool) {
	e = l.entries[id]
	switch {
	case !known || e == nil:
		l.unexpected++
		l.example("message %s: nobody sent request %d", message, id)
		return nil, false
	case e.sum != sum:
		l.corrupt++
		l.example("message %s: request %d is not as it was sent", message, id)
		return e, false
	case e.message != "" && e.message != message:
		l.corrupt++
		l.example("request %d was accepted as %s and has come as %s", id, e.message, message)
		return e, false
	case e.found != "" && e.found != message:
		l.corrupt++
		l.example("request %d has come as %s and as %s", id, e.found, message)
		return e, false
	}
	return e, true
}

func (l *ledger) example(format string, args ...any) {
	if len(l.examples) < 10 {
		l.examples = append(l.examples, fmt.Sprintf(format, args...))
	}
}

// audit is what the ledger says when the queue was read empty or, where there is a drain, when that is done: then what
// is said here of the queue is meant of the primary and the parked queue.
type audit struct {
	Sent         int            // requests, of which at least a byte was written
	Acknowledged int            // 202 read to its end
	Delivered    int            // of these, those on the queue
	Parked       int            // of these, those on the parked queue and not at the primary before
	Left         int            // of these, those still on their way; not lost
	Expired      int            // of these, those that a drain says are too old
	Lost         int            // of these, the rest
	Overbooked   int            // more than these, and than there are undetermined ones, are said to have expired
	Corrupt      int            // on the queue, and not as it was sent
	Unexpected   int            // on the queue, and never sent
	Duplicated   int            // on the queue once more
	Undetermined int            // sent and not acknowledged
	Found        int            // of the undetermined, those on the queue
	Unanswered   int            // the connection was lost before an answer, or none came in time
	Undialled    int            // connections that could not be made; nothing was sent
	Cut          int            // of the unanswered, those on the queue: the server had them in hand
	Late         int            // answered after the deadline and one second, or not at all
	Excused      int            // neither late nor unanswered, because the sender itself was late
	Slowest      time.Duration  // to an answer
	Answers      map[string]int // other than 202, by what they said
	Examples     []string
}

func (l *ledger) audit() audit {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := audit{
		Sent: len(l.entries), Acknowledged: l.accepted, Corrupt: l.corrupt, Unexpected: l.unexpected,
		Duplicated: l.duplicated,
		Unanswered: l.unanswered, Undialled: l.undialled, Late: l.lateOnes, Excused: l.excused, Slowest: l.slowest,
		Answers: maps.Clone(l.answers), Examples: slices.Clone(l.examples),
	}
	for id, e := range l.entries {
		switch {
		case e.message == "":
			a.Undetermined++
			if e.found != "" {
				a.Found++
				if e.cut {
					a.Cut++
				}
			}
		case e.parked:
			a.Parked++
		case e.found != "":
			a.Delivered++
		case e.left:
			a.Left++
		default:
			a.Lost++
			if len(a.Examples) < 20 {
				a.Examples = append(a.Examples,
					fmt.Sprintf("request %d was accepted as %s and has not come", id, e.message))
			}
		}
	}
	return a
}

// expire takes it that so many of the lost are not, because they were too old by a rule. That is all that is known of
// them.
func (a *audit) expire(n int) {
	a.Expired = min(n, a.Lost)
	a.Lost -= a.Expired
	a.Overbooked = max(n-a.Expired-a.Undetermined+a.Found, 0)
}

// tally is what the senders have seen.
type tally struct {
	accepted   int
	unanswered int
	undialled  int
	answers    map[string]int // other than 202
}

// tally says what they have seen so far.
func (l *ledger) tally() tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	return tally{l.accepted, l.unanswered, l.undialled, maps.Clone(l.answers)}
}

// since is what they have seen after before.
func (now tally) since(before tally) tally {
	answers := map[string]int{}
	for answer, n := range now.answers {
		if n > before.answers[answer] {
			answers[answer] = n - before.answers[answer]
		}
	}
	return tally{now.accepted - before.accepted, now.unanswered - before.unanswered, now.undialled - before.undialled,
		answers}
}

// failures counts all but 202s.
func (now tally) failures() int {
	sum := now.unanswered + now.undialled
	for _, n := range now.answers {
		sum += n
	}
	return sum
}

// countGaps begins to look for the longest time without a 202.
func (l *ledger) countGaps() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last, l.gap = time.Now(), 0
}

// longestGap is the longest time without a 202 since countGaps.
func (l *ledger) longestGap() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.gap, time.Since(l.last))
}

// progress is how many of the accepted have come out nowhere yet, and how many times a request has come out somewhere.
func (l *ledger) progress() (open, arrivals int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open, l.arrivals
}

// awaitArrival begins to wait for the next delivery.
func (l *ledger) awaitArrival() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since, l.next = time.Now(), time.Time{}
}

// nextArrival is when the first delivery came since awaitArrival; zero while there is none.
func (l *ledger) nextArrival() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}
