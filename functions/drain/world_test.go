package drain

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"fallback/functions/envelope"
	"fallback/functions/target"
)

// world is a broker and a primary in the time of a test: a main queue, the retry queues that give back to it, and the
// parked queue. It stands for the broker where a test lasts for hours.
type world struct {
	mu      sync.Mutex
	ready   []*parcel // of the main queue
	parked  []*parcel
	retries map[string]int   // how many are on each retry queue
	waiting map[*parcel]bool // on any of them
	most    map[string]int   // of a queue, before it refuses; absent for no limit
	ttl     map[string]time.Duration

	more    chan struct{} // closed, and made anew, when something has changed
	unacked map[*parcel]*session

	probe   func() (bool, target.Verdict)
	answer  func(m *parcel) (target.Verdict, time.Duration) // and how long it takes
	sent    []send
	flying  int
	peak    int // of flying
	probes  int
	moves   int
	early   int  // were sent before they should have been
	deaf    bool // hears no ack until the first connection is lost
	unheard []*parcel
	slow    bool // a moment goes by between a move's copy and its ack, in which the connection may be lost
	breaks  int  // connections that ended for a message that cannot be handed over
	cuts    int  // requests whose connection was ended for another
	counts  bool // what is requeued counts as come back, as on RabbitMQ 4.0 and 3.10
	late    int  // so many of the next moves are copies that are not confirmed in time

	parcels   map[int]*parcel // by number, until they are taken off their queue
	numbers   int             // of the next one
	all       map[string]bool
	many      bool // workers
	poison    map[string]*poison
	periods   []*period
	sessions  []*session
	delivered map[string]time.Duration // since the world began
	began     time.Time
}

type send struct {
	id string
	at time.Duration
}

// parcel is a message on any queue.
type parcel struct {
	id        string
	number    int // its own: two copies of a message have the same id
	request   *envelope.Request
	headers   map[string]any
	consumer  int
	returns   int // deliveries that came back
	sends     int
	bad       int       // answers, as poison counts them
	answers   string    // of outages, for people
	outages   []*period // that answered it
	stuck     bool      // it cannot be handed over
	passed    bool      // it came by Pass
	notBefore time.Time // the primary has said
}

func newWorld() *world {
	return &world{
		retries: map[string]int{}, waiting: map[*parcel]bool{}, most: map[string]int{}, unacked: map[*parcel]*session{},
		more:    make(chan struct{}),
		ttl:     map[string]time.Duration{"10s": 10 * time.Second, "1m": time.Minute, "10m": 10 * time.Minute},
		parcels: map[int]*parcel{}, all: map[string]bool{}, delivered: map[string]time.Duration{}, began: time.Now(),
	}
}

// put appends n requests of a sender on a route to the main queue.
func (w *world) put(n int, route, sender string) {
	for range n {
		id := fmt.Sprintf("%s-%s-%d", route, sender, len(w.all))
		w.all[id] = true
		m := &parcel{id: id, request: &envelope.Request{
			ID: id, Method: "POST", Target: "/" + route, Header: map[string][]string{"Authorization": {sender}},
			ReceivedAt: time.Now(),
		}}
		w.register(m)
		w.ready = append(w.ready, m)
	}
}

func (w *world) register(m *parcel) {
	m.number = w.numbers
	w.numbers++
	w.parcels[m.number] = m
}

// headerNumber tells the primary which parcel a request is of.
const headerNumber = "Number"

func (w *world) options() Options {
	return Options{
		Parked: "parked", Retries: []Retry{{"10s", 10 * time.Second}, {"1m", time.Minute}, {"10m", 10 * time.Minute}},
		MaxAttempts: 8, Concurrency: 8, Stale: StaleDeliver,
	}
}

// session is a worker's connection to the broker, and its way to the primary.
type session struct {
	*world
	cancel   func() // ends the worker
	dead     bool   // it has
	lost     bool   // the connection is, until the next call
	taking   bool
	credit   int
	consumer int
}

func (w *world) session() *session { return &session{world: w} }

// Waiting, cut off, ends the connection, as a question to the broker does.
func (s *session) Waiting(ctx context.Context) (int, error) {
	if ctx.Err() != nil {
		s.lose()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = false
	return len(s.ready), errors.Join(ctx.Err(), s.alive())
}

// Left takes a moment, like the source's, which asks more than once.
func (s *session) Left(ctx context.Context, _ int) (int, error) {
	select {
	case <-time.After(30 * time.Millisecond):
	case <-ctx.Done():
	}
	return s.Waiting(ctx)
}

func (s *session) alive() error {
	if s.dead || s.lost {
		return ErrLost
	}
	return nil
}

// Take ends the connections of Pass, and gives back what came by them and is not settled.
func (s *session) Take(_ context.Context, prefetch int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for m, with := range s.unacked {
		if with == s && m.passed {
			s.cuts++
			delete(s.unacked, m)
			m.returns++
			s.ready = append([]*parcel{m}, s.ready...)
		}
	}
	s.lost, s.credit, s.taking = false, prefetch, true
	s.consumer++
	return s.alive()
}

func (s *session) CountsRequeues() bool { return s.counts }

func (s *session) Stop(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.back(s.counts)
	return s.alive()
}

// back ends the consumer: what was on its way to it goes back.
func (s *session) back(counted bool) {
	if s.taking && counted {
		for _, m := range s.ready[:min(s.credit, len(s.ready))] {
			m.returns++
		}
	}
	s.taking = false
}

func (s *session) Next(ctx context.Context) (Delivery, error) {
	for asked := 0; ; {
		s.mu.Lock()
		if err := s.alive(); err != nil {
			s.mu.Unlock()
			return nil, err
		}
		if len(s.ready) > 0 && s.credit > 0 {
			m := s.ready[0]
			if m.stuck {
				s.breaks++
				s.mu.Unlock()
				s.lose()
				return nil, ErrHandOver
			}
			s.ready = s.ready[1:]
			s.credit--
			m.consumer, m.passed = s.consumer, false
			s.unacked[m] = s
			taken := &delivery{s, m, m.returns}
			s.mu.Unlock()
			return taken, nil
		}
		dry, more := len(s.ready) == 0, s.more
		s.mu.Unlock()
		if dry {
			if asked++; asked == 3 {
				return nil, ErrDry
			}
		}
		timer := time.NewTimer(25 * time.Millisecond)
		if !dry {
			timer.Reset(time.Hour)
		}
		select {
		case <-more:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
		timer.Stop()
	}
}

// Pass takes three that are behind those that cannot be handed over.
func (s *session) Pass(context.Context) (taken []Delivery, err error) {
	time.Sleep(10 * time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = false
	s.consumer++
	for i := 0; i < len(s.ready) && len(taken) < 3; {
		m := s.ready[i]
		if m.stuck {
			err = ErrHandOver
			s.breaks++
			i++
			continue
		}
		s.ready = append(s.ready[:i:i], s.ready[i+1:]...)
		s.unacked[m], m.passed = s, true
		taken = append(taken, &delivery{s, m, m.returns})
	}
	return taken, err
}

// lose takes the connection away: what is with the worker goes back, and the broker counts it.
func (s *session) lose() { s.gone(false) }

func (s *session) gone(ends bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.back(true)
	s.lost = true
	s.dead = s.dead || ends
	for _, m := range s.unheard {
		m.returns++
		s.ready = append([]*parcel{m}, s.ready...)
	}
	s.deaf, s.unheard = false, nil
	for m, with := range s.unacked {
		if with == s {
			delete(s.unacked, m)
			m.returns++
			if s.many {
				m.notBefore = m.told() // somebody else may take it
			}
			s.ready = append([]*parcel{m}, s.ready...)
		}
	}
	if ends { // with what it had heard of those that were with it, or that it had lost before
		for _, m := range s.ready {
			m.notBefore = m.told()
		}
	}
	s.signal()
}

// told is what everybody knows of the wait that was asked for.
func (m *parcel) told() time.Time { return moment(fmt.Sprint(m.headers[HeaderNotBefore])) }

// die ends the worker.
func (s *session) die() { s.gone(true) }

// signal says that something has changed; the caller holds mu.
func (w *world) signal() {
	close(w.more)
	w.more = make(chan struct{})
}

func (w *world) Probe(context.Context) (bool, target.Verdict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.probes++
	if w.probe == nil {
		return true, done
	}
	return w.probe()
}

func (s *session) Send(ctx context.Context, r *envelope.Request, _ target.Try) target.Verdict {
	w := s.world
	w.mu.Lock()
	number, err := strconv.Atoi(r.Header[headerNumber][0])
	if err != nil {
		panic(err)
	}
	m := w.parcels[number]
	if m == nil { // another worker has settled it
		w.mu.Unlock()
		return target.Verdict{Action: target.Pause, Reason: "cut off"}
	}
	m.sends++
	w.sent = append(w.sent, send{r.ID, time.Since(w.began)})
	if m.returns == 0 && time.Now().Before(m.notBefore) { // else it may have been on its way twice
		w.early++
	}
	w.flying++
	w.peak = max(w.peak, w.flying)
	v, takes := w.answer(m)
	p := w.poison[m.id]
	w.mu.Unlock()
	if p != nil && p.kills {
		w.mu.Lock()
		w.flying--
		w.mu.Unlock()
		s.die()
		s.cancel()
		return target.Verdict{Action: target.Pause, Reason: "cut off"}
	}
	timer := time.NewTimer(takes)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		v = target.Verdict{Action: target.Pause, Reason: "cut off"}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flying--
	if v.After > 0 && !s.dead && (!w.many || w.unacked[m] == s) { // else who has it now does not know
		m.notBefore = time.Now().Add(v.After)
	}
	if v.Action == target.Done {
		if _, ok := w.delivered[m.id]; !ok {
			w.delivered[m.id] = time.Since(w.began)
		}
	}
	return v
}

// delivery is a message that was delivered.
type delivery struct {
	*session
	*parcel
	came int // how often it had come back
}

func (d *delivery) Request() (*envelope.Request, error) {
	request := *d.request
	request.Header = maps.Clone(request.Header)
	request.Header[headerNumber] = []string{strconv.Itoa(d.number)}
	return &request, nil
}

func (d *delivery) Identify() string { return d.id }
func (d *delivery) Size() int        { return len(d.request.Body) }
func (d *delivery) Header(name string) string {
	if v, ok := d.headers[name]; ok {
		return fmt.Sprint(v)
	}
	if name == headerReturns && d.came > 0 {
		return fmt.Sprint(d.came)
	}
	return ""
}

func (d *delivery) Lost() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.requeued()
}

// requeued says that the worker has lost it, even if it has it again; the caller holds mu.
func (d *delivery) requeued() bool { return d.unacked[d.parcel] != d.session || d.came != d.returns }

func (d *delivery) Forget() {}

func (d *delivery) Done() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deaf {
		d.unheard = append(d.unheard, d.parcel)
	} else if !d.requeued() {
		delete(d.parcels, d.number)
	}
	return d.leave()
}

func (d *delivery) Requeue() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.leave(); err != nil {
		return err
	}
	if d.counts {
		d.returns++
	}
	d.ready = append([]*parcel{d.parcel}, d.ready...)
	return nil
}

// leave is for a message that is not with the worker any more; the caller holds mu.
func (d *delivery) leave() error {
	if d.requeued() {
		return ErrLost
	}
	delete(d.unacked, d.parcel)
	if d.parcel.consumer == d.session.consumer {
		d.credit++
	}
	d.signal()
	return nil
}

func (d *delivery) Move(_ context.Context, queue string, headers map[string]any) error {
	time.Sleep(time.Millisecond)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.copyTo(queue, headers); err != nil {
		return err
	}
	if d.late > 0 {
		d.late--
		return ErrUnconfirmed
	}
	if d.slow {
		d.mu.Unlock()
		time.Sleep(time.Millisecond / 2)
		d.mu.Lock()
	}
	if err := d.leave(); err != nil {
		return fmt.Errorf("%w: %w", ErrCopied, err)
	}
	delete(d.parcels, d.number)
	return nil
}

// copyTo is a move's first half; the caller holds mu.
func (d *delivery) copyTo(queue string, headers map[string]any) error {
	w := d.world
	if most, ok := w.most[queue]; ok && w.retries[queue] >= most {
		return errors.New("the queue is full")
	}
	if d.requeued() {
		return ErrLost
	}
	w.moves++
	moved := *d.parcel
	w.register(&moved)
	moved.returns = 0
	moved.headers = maps.Clone(moved.headers)
	if moved.headers == nil {
		moved.headers = map[string]any{}
	}
	for name, value := range headers {
		if value == nil {
			delete(moved.headers, name)
		} else {
			moved.headers[name] = value
		}
	}
	if queue == "parked" {
		w.parked = append(w.parked, &moved)
		return nil
	}
	w.retries[queue]++
	w.waiting[&moved] = true
	time.AfterFunc(w.ttl[queue], func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.retries[queue]--
		delete(w.waiting, &moved)
		w.ready = append(w.ready, &moved)
		w.signal()
	})
	return nil
}

// work runs the drain each minute, as a worker does, until everything has its end, or for d.
func (w *world) work(t *testing.T, d time.Duration) {
	t.Helper()
	s := w.session()
	worker := New(w.options(), s, s)
	for begin := time.Now(); time.Since(begin) < d && w.left() > 0; {
		run := time.Now()
		worker.Once(t.Context(), Budget{Time: time.Minute})
		if w.left() > 0 {
			time.Sleep(time.Minute - time.Since(run))
		}
	}
}

// left is how many are on the main queue, the retry queues or with us.
func (w *world) left() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, on := range w.retries {
		n += on
	}
	return n + len(w.ready) + len(w.unacked)
}

func (w *world) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("%s: %d delivered, %d parked, %d ready, %v on retry queues, %d unacked; %d sends, %d probes, "+
		"%d moves, %d early, peak %d",
		time.Since(w.began), len(w.delivered), len(w.parked), len(w.ready), w.retries, len(w.unacked), len(w.sent),
		w.probes, w.moves, w.early, w.peak)
}

// name gives the first n a name.
func (w *world) name(n int, name string) {
	for i, m := range w.ready[:n] {
		delete(w.all, m.id)
		m.id = fmt.Sprintf("%s-%d", name, i)
		m.request.ID = m.id
		w.all[m.id] = true
	}
}

// sentAt is when a request was sent first.
func (w *world) sentAt(id string) time.Duration {
	for _, one := range w.sent {
		if one.id == id {
			return one.at
		}
	}
	return 0
}

// lastGood is when the last was delivered that is not named bad; a time that does not come if one was not.
func (w *world) lastGood() (at time.Duration) {
	for id := range w.all {
		when, ok := w.delivered[id]
		switch {
		case strings.Contains(id, "bad"):
		case !ok:
			return 1000 * time.Hour
		default:
			at = max(at, when)
		}
	}
	return at
}

// lost is how many are nowhere.
func (w *world) lost() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	somewhere := map[string]bool{}
	for id := range w.delivered {
		somewhere[id] = true
	}
	for _, m := range append(append([]*parcel(nil), w.parked...), w.ready...) {
		somewhere[m.id] = true
	}
	for m := range w.unacked {
		somewhere[m.id] = true
	}
	for m := range w.waiting {
		somewhere[m.id] = true
	}
	for id := range w.all {
		if !somewhere[id] {
			n++
		}
	}
	return n
}
