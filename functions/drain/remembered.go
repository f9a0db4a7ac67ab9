package drain

import (
	"errors"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"fallback/functions/target"
)

// remembered is what was ruled on requests that were answered, and are on their queue still: the broker may not have
// heard of it, or no queue takes them. They come again, and are settled as it was ruled, without being sent again.
type remembered struct {
	words *simplelru.LRU[string, word]
	acks  [mostAcks]ack // the last ones
	next  int           // of these
}

// word is what was ruled, and of which request: one that comes again after other attempts, or that an operator has
// redriven, is another; and so is its own copy, if it was set aside.
type word struct {
	fate        fate
	wait        time.Duration
	reason      string
	copied      Outcome
	asides      int // for uncopy
	verdict     target.Verdict
	sent, heard time.Time
	attempts    int
	redriven    time.Time
	fingerprint uint64
	acked       bool // it was taken off the queue, if the broker has heard of it
}

// ack is of a request that was taken off the queue.
type ack struct {
	key string
	word
	at time.Time
}

const (
	// mostRemembered bounds those that are remembered.
	mostRemembered = 1024
	// mostAcks bounds the acks that are remembered. unheard is how old an ack may be that the broker misses when the
	// connection is lost.
	mostAcks = 256
	unheard  = 5 * time.Second
)

func newRemembered() remembered {
	words, err := simplelru.NewLRU[string, word](mostRemembered, nil)
	if err != nil {
		panic(err) // for a size under 1 only
	}
	return remembered{words: words}
}

// note remembers what was ruled on a request that was answered, or copied: moved once more, it would come twice.
func (l *remembered) note(s settled) {
	w := wordOn(s.ruling)
	if errors.Is(s.err, ErrCopied) {
		w.fate, w.copied = uncopy, s.outcome
	}
	if s.key != "" && (!s.heard.IsZero() || w.fate == uncopy) {
		l.words.Add(s.key, w)
	}
}

func wordOn(r ruling) word {
	return word{
		fate: r.fate, wait: r.wait, reason: r.reason, copied: r.copied, asides: r.asides, verdict: r.verdict,
		sent: r.sent, heard: r.heard, attempts: r.attempts, redriven: r.redriven, fingerprint: r.fingerprint,
	}
}

// acked is for one that was taken off the queue.
func (l *remembered) acked(r ruling, now time.Time) {
	a := ack{r.key, wordOn(r), now}
	a.word.acked = true
	l.acks[l.next%mostAcks] = a
	l.next++
}

// lose is for a source that is lost: the last acks may not have been heard.
func (l *remembered) lose(now time.Time) {
	for _, a := range l.acks {
		if a.key != "" && now.Sub(a.at) < unheard {
			l.words.Add(a.key, a.word)
		}
	}
	clear(l.acks[:])
}

// recall is what was ruled, once.
func (l *remembered) recall(it *item) (ruling, bool) {
	w, ok := l.words.Get(it.key)
	if !ok || w.fingerprint != it.fingerprint || w.attempts != it.attempts || !w.redriven.Equal(it.redriven) ||
		w.acked && it.returns == 0 || w.fate == uncopy && w.asides != it.asides {
		return ruling{}, false
	}
	l.words.Remove(it.key)
	it.again, it.acked, it.verdict, it.sent, it.heard = true, w.acked, w.verdict, w.sent, w.heard
	return ruling{item: it, fate: w.fate, wait: w.wait, reason: w.reason, copied: w.copied}, true
}
