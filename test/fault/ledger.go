package fault

import (
	"fmt"
	"hash/maphash"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"
)

// ledger is what the senders know, kept outside the server. Its ids are the senders' own: one for each request.
type ledger struct {
	late time.Duration // an answer that took longer is late

	mu         sync.Mutex // guards what follows
	entries    map[uint64]*entry
	accepted   int
	last       time.Time     // of the last 202, or when the gaps began to count
	gap        time.Duration // the longest between two of them
	slowest    time.Duration
	lateOnes   int
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
}

func newLedger(late time.Duration) *ledger {
	return &ledger{late: late, entries: map[uint64]*entry{}, answers: map[string]int{}}
}

var sumSeed = maphash.MakeSeed()

// checksum is over everything of a request that the senders choose. Headers that were added on the way are not looked at.
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
func (l *ledger) record(id uint64, message string, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[id]
	e.message = message
	l.accepted++
	now := time.Now()
	l.gap, l.last = max(l.gap, now.Sub(l.last)), now
	l.took(took)
}

// undial notes that a connection to the server could not be made.
func (l *ledger) undial() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.undialled++
}

// refused notes any other answer: the request may be on the queue or not.
func (l *ledger) refused(answer string, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers[answer]++
	l.took(took)
}

// broken notes that no answer came: the connection was lost, or the sender gave up, for which took is over the limit.
func (l *ledger) broken(id uint64, err error, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[id].cut = true
	l.unanswered++
	l.took(took)
	if len(l.examples) < 10 {
		l.examples = append(l.examples, fmt.Sprintf("request %d: no answer in %s: %v", id, took, err))
	}
}

func (l *ledger) took(d time.Duration) {
	l.slowest = max(l.slowest, d)
	if d > l.late {
		l.lateOnes++
	}
}

// delivered notes a message that was read off the queue. Known says whether the message has one of the senders' ids.
func (l *ledger) delivered(id uint64, known bool, sum uint64, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[id]
	switch {
	case !known || e == nil:
		l.unexpected++
		l.example("message %s: nobody sent request %d", message, id)
		return
	case e.sum != sum:
		l.corrupt++
		l.example("message %s: request %d is not as it was sent", message, id)
	case e.message != "" && e.message != message:
		l.corrupt++
		l.example("request %d was accepted as %s and is on the queue as %s", id, e.message, message)
	case e.found != "":
		l.duplicated++
	}
	e.found = message
}

func (l *ledger) example(format string, args ...any) {
	if len(l.examples) < 10 {
		l.examples = append(l.examples, fmt.Sprintf(format, args...))
	}
}

// audit is what the ledger says when the queue was read empty.
type audit struct {
	Sent         int            // requests, of which at least a byte was written
	Acknowledged int            // 202 read to its end
	Lost         int            // acknowledged and not on the queue
	Corrupt      int            // on the queue, and not as it was sent
	Unexpected   int            // on the queue, and never sent
	Duplicated   int            // on the queue once more
	Undetermined int            // sent and not acknowledged
	Found        int            // of the undetermined, those on the queue
	Unanswered   int            // the connection was lost before an answer, or none came in time
	Undialled    int            // connections that could not be made; nothing was sent
	Cut          int            // of the unanswered, those on the queue: the server had them in hand
	Late         int            // answered after the deadline and one second, or not at all
	Slowest      time.Duration  // to an answer
	Answers      map[string]int // other than 202, by what they said
	Examples     []string
}

func (l *ledger) audit() audit {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := audit{
		Sent: len(l.entries), Acknowledged: l.accepted, Corrupt: l.corrupt, Unexpected: l.unexpected, Duplicated: l.duplicated,
		Unanswered: l.unanswered, Undialled: l.undialled, Late: l.lateOnes, Slowest: l.slowest, Answers: maps.Clone(l.answers), Examples: slices.Clone(l.examples),
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
		case e.found == "":
			a.Lost++
			if len(a.Examples) < 20 {
				a.Examples = append(a.Examples, fmt.Sprintf("request %d was accepted as %s and is not on the queue", id, e.message))
			}
		}
	}
	return a
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
	return tally{now.accepted - before.accepted, now.unanswered - before.unanswered, now.undialled - before.undialled, answers}
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
