package fault

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"fallback/test/harness"
)

// door is a place to send requests to: an address and the path that everything is below.
type door struct{ addr, prefix string }

// load is senders in closed loop: each sends its next request when the last has been answered.
type load struct {
	ledger  *ledger
	seed    uint64
	size    int // of every body; 0 for what the seed chooses
	keys    int // how many senders the primary can tell apart; 0 for none
	doors   []door
	timeout time.Duration                // of the server, for one request
	rest    time.Duration                // of a sender after each 202
	budget  atomic.Pointer[rate.Limiter] // of 202s, for all senders; nil for no bound

	next atomic.Uint64 // the last id given out
	stop chan struct{}
	work sync.WaitGroup

	gate sync.RWMutex // a sender holds it for reading during a request, and pause for writing

	watcher atomic.Pointer[watcher]
}

func newLoad(l *ledger, seed uint64, timeout time.Duration, doors ...door) *load {
	return &load{ledger: l, seed: seed, timeout: timeout, doors: doors}
}

// start starts senders; they end with end.
func (l *load) start(senders int) {
	l.stop = make(chan struct{})
	for i := range senders {
		l.work.Go(func() { l.send(i) })
	}
}

// end lets each sender finish its request, and closes the connections. Twice is fine.
func (l *load) end() {
	if !l.ended() {
		close(l.stop)
	}
	l.work.Wait()
}

// pause lets each sender finish its request and holds it back until resume.
func (l *load) pause()  { l.gate.Lock() }
func (l *load) resume() { l.gate.Unlock() }

// watcher waits for the 202 of a request that was sent after a time: the answers of those that were under way then say
// nothing of how things are since.
type watcher struct {
	since time.Time
	watch harness.Watch
	found chan harness.Elapsed
}

// watch gives the time from now until the first 202 to a request that is sent from now on.
func (l *load) watch() <-chan harness.Elapsed {
	w := &watcher{time.Now(), harness.StartWatch(), make(chan harness.Elapsed, 1)}
	l.watcher.Store(w)
	return w.found
}

func (l *load) ended() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// send is one sender. It keeps its connection; when it loses it, it tries the next door.
func (l *load) send(i int) {
	s := sender{load: l, door: i}
	defer s.hangUp()
	for !l.ended() {
		l.gate.RLock()
		wait := time.Duration(0)
		if !l.ended() {
			wait = s.one()
		}
		l.gate.RUnlock()
		if wait > 0 {
			select {
			case <-time.After(wait):
			case <-l.stop:
			}
		}
	}
}

// accepted tells who watches.
func (l *load) accepted(sent time.Time) {
	if w := l.watcher.Load(); w != nil && !sent.Before(w.since) && l.watcher.CompareAndSwap(w, nil) {
		w.found <- w.watch.Elapsed()
	}
}

// budgetBurst and budgetRate bound what a round puts on its queue, in requests and in requests a second, for nothing
// is taken from it until the round's end. The broker is configured for a small machine: what it holds while some
// 100,000 requests come in within seconds is more than its memory watermark of 512 MB, and then it blocks publishers,
// which is a fault of its own.
const (
	budgetBurst = 20_000
	budgetRate  = 3_000
)

// refill gives the senders a whole budget, whatever they have used.
func (l *load) refill() { l.budget.Store(rate.NewLimiter(budgetRate, budgetBurst)) }

// overBudget is how long a sender is to wait after a 202.
func (l *load) overBudget() time.Duration {
	if b := l.budget.Load(); b != nil {
		return b.Reserve().Delay()
	}
	return 0
}

// sender is one connection after the other.
type sender struct {
	*load
	door  int
	conn  net.Conn
	in    *bufio.Reader
	out   []byte
	heard time.Time // when it called for its connection, or had the last answer over it
}

func (s *sender) hangUp() {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}

// isClosed looks, as any client does after a pause, whether the server has closed the connection in the meantime.
func (s *sender) isClosed() bool {
	_ = s.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := s.in.Peek(1)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// dial connects to this sender's door, or the next one.
func (s *sender) dial() error {
	conn, err := net.DialTimeout("tcp", s.doors[s.door%len(s.doors)].addr, patience)
	if err != nil {
		s.door++
		s.ledger.undial()
		return err
	}
	s.conn = conn
	if s.in == nil {
		s.in = bufio.NewReaderSize(conn, 4096)
	}
	s.in.Reset(conn)
	return nil
}

// patience is how long a sender waits for a connection, and how much longer than the server may take for an answer:
// one that comes late is seen as late, and one that never comes as that. It is long, for what a sender takes is its
// own time, too.
const patience = 30 * time.Second

// longestLag is how long a sender may take from its call for a connection, or from the last answer over it, to its
// first byte. The server closes a connection that says nothing for a second, when it is one too many or another one
// comes. A sender that took longer is told nothing, and has no reason to complain.
const longestLag = 500 * time.Millisecond

// refusedPause is how long a sender waits after anything but a 202.
func refusedPause() time.Duration { return 20*time.Millisecond + rand.N(60*time.Millisecond) }

// one sends one request and returns how long to wait before the next.
func (s *sender) one() time.Duration {
	sent := time.Now()
	switch status, _, _ := s.ask(); status {
	case http.StatusAccepted:
		s.accepted(sent)
		return max(s.rest, s.overBudget())
	case notSent:
		return refusedPause() / 2
	case noAnswer: // a process that dies takes a moment to let go of its backlog: a connection from there would be cut off, too
		return refusedPause() + 300*time.Millisecond
	default:
		return refusedPause()
	}
}

// What ask says instead of a status.
const (
	notSent  = 0
	noAnswer = -1
)

// ask sends one request, enters what comes of it into the ledger, and says what it was. A 202 without an id is none.
func (s *sender) ask() (status int, took harness.Elapsed, answer string) {
	if s.conn != nil && time.Since(s.heard) > longestLag && s.isClosed() {
		s.hangUp()
	}
	if s.conn == nil {
		s.heard = time.Now()
		if err := s.dial(); err != nil {
			return notSent, took, err.Error()
		}
	}
	r := s.request(s.next.Add(1))
	s.out = r.append(s.out[:0], s.doors[s.door%len(s.doors)])
	s.ledger.sending(r.id, r.sum())
	w, lag := harness.StartWatch(), time.Since(s.heard)
	_ = s.conn.SetDeadline(time.Now().Add(s.timeout + patience))
	status, closing, body, err := s.exchange()
	took, s.heard = w.Elapsed(), time.Now()
	if err != nil {
		if lag > longestLag {
			s.ledger.tooSlow(r.id)
		} else {
			s.ledger.broken(r.id, err, took)
		}
		s.hangUp()
		s.door++
		return noAnswer, took, err.Error()
	}
	if closing {
		s.hangUp()
	}
	if message := messageID(body); status == http.StatusAccepted && message != "" {
		s.ledger.record(r.id, message, took)
		return status, took, ""
	}
	answer = problemOf(status, body)
	s.ledger.refused(answer, took)
	if status == http.StatusAccepted {
		status = noAnswer
	}
	return status, took, answer
}

// exchange reads the answer even if not all could be written: a server may answer and close before it has read a body.
func (s *sender) exchange() (status int, closing bool, body []byte, err error) {
	_, unwritten := s.conn.Write(s.out)
	if status, closing, body, err = readAnswer(s.in); err != nil {
		err = cmp.Or(unwritten, err)
	}
	return status, closing || unwritten != nil, body, err
}

// readAnswer reads one answer to its end.
func readAnswer(in *bufio.Reader) (status int, closing bool, body []byte, err error) {
	length := -1
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, false, nil, err
		}
		switch {
		case status == 0:
			if len(line) < 12 {
				return 0, false, nil, fmt.Errorf("the answer begins with %q", line)
			}
			if status, err = strconv.Atoi(string(line[9:12])); err != nil {
				return 0, false, nil, err
			}
		case len(line) > 15 && strings.EqualFold(string(line[:15]), "Content-Length:"):
			length, _ = strconv.Atoi(string(bytes.TrimSpace(line[15:])))
		case len(line) > 11 && strings.EqualFold(string(line[:11]), "Connection:"):
			closing = bytes.Contains(line, []byte("close"))
		}
		if len(line) == 2 {
			break
		}
	}
	if length < 0 || length > 1<<20 {
		return 0, false, nil, errors.New("the answer has no usable Content-Length")
	}
	body = make([]byte, length)
	_, err = io.ReadFull(in, body)
	return status, closing, body, err
}

// messageID is the id in a 202's body; empty when the body is not one of ours.
func messageID(body []byte) string {
	rest, ok := bytes.CutPrefix(body, []byte(`{"id":"`))
	id, _, found := bytes.Cut(rest, []byte(`"`))
	if !ok || !found || !bytes.HasSuffix(bytes.TrimSpace(body), []byte("}")) {
		return ""
	}
	return string(id)
}

// problemOf names an answer that is no 202: the status and the last word of the problem's type.
func problemOf(status int, body []byte) string {
	_, rest, _ := bytes.Cut(body, []byte("urn:fallback:problem:"))
	name, _, _ := bytes.Cut(rest, []byte(`"`))
	return strings.TrimSpace(strconv.Itoa(status) + " " + string(name))
}

// request is what a sender sends: all of it follows from the seed and the id.
type request struct {
	id     uint64
	method string
	target string
	check  string // a header's value
	key    string // another's, which says who sends; empty for nobody
	body   []byte
}

// pool is where bodies are cut from.
var pool = func() []byte {
	b := make([]byte, 256<<10)
	source := rand.NewChaCha8([32]byte{})
	_, _ = source.Read(b)
	return b
}()

var methods = [...]string{"POST", "POST", "POST", "PUT", "PATCH", "DELETE"}

func (l *load) request(id uint64) request {
	r := rand.New(rand.NewPCG(l.seed, id))
	size := r.IntN(4097) * r.IntN(4097) / 4096 // more small ones than large ones
	switch r.IntN(100) {
	case 0:
		size = 64 << 10
	case 1, 2, 3, 4, 5:
		size = 0
	}
	if l.size > 0 {
		size = l.size
	}
	at := r.IntN(len(pool) - size + 1)
	key := ""
	if l.keys > 0 {
		key = senderKey(id % uint64(l.keys))
	}
	return request{
		id:     id,
		method: methods[r.IntN(len(methods))],
		target: "/orders/" + strconv.FormatUint(id, 10) + "?check=" + strconv.FormatUint(r.Uint64(), 36),
		check:  strconv.FormatUint(r.Uint64(), 36),
		key:    key,
		body:   pool[at : at+size],
	}
}

// senderKey is that of one of the senders.
func senderKey(which uint64) string { return "sender-" + strconv.FormatUint(which, 10) }

func (r request) sum() uint64 {
	h := http.Header{
		"User-Agent": {userAgent}, "Content-Type": {contentType}, checkHeader: {r.check},
		ledgerID: {strconv.FormatUint(r.id, 10)},
	}
	if r.key != "" {
		h.Set(keyHeader, r.key)
	}
	return checksum(r.method, r.target, h, r.body)
}

// head is everything before the body.
func (r request) head(b []byte, to door) []byte {
	b = append(b, r.method...)
	b = append(b, ' ')
	b = append(b, to.prefix...)
	b = append(b, r.target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, to.addr...)
	b = append(b, "\r\nUser-Agent: "+userAgent+"\r\nContent-Type: "+contentType+"\r\n"+checkHeader+": "...)
	b = append(b, r.check...)
	b = append(b, "\r\n"+ledgerID+": "...)
	b = strconv.AppendUint(b, r.id, 10)
	if r.key != "" {
		b = append(b, "\r\n"+keyHeader+": "+r.key...)
	}
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(r.body)), 10)
	return append(b, "\r\n\r\n"...)
}

func (r request) append(b []byte, to door) []byte { return append(r.head(b, to), r.body...) }

const (
	userAgent   = "fault"
	contentType = "application/octet-stream"
	keyHeader   = "X-Api-Key"
	checkHeader = "X-Check"   // has a value that is another with every request
	ledgerID    = "Ledger-Id" // by it a message is found in the ledger
)

// ownHeaders are those that a sender chooses the value of, as they come back in a captured request.
var ownHeaders = [...]string{"User-Agent", "Content-Type", checkHeader, ledgerID, keyHeader}
