package fault

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"fallback/test/harness"
)

// wanted is how many requests the long run is to have accepted (FAULT_ACKNOWLEDGED); 0 for a short one.
var wanted int

// allowed is the bound on a time that is promised. A long run measures, so it is the promise itself; a short one is a
// test for every machine.
func allowed(promised time.Duration) time.Duration {
	if wanted > 0 {
		return promised
	}
	return promised + harness.Slack
}

const (
	// recoveryLimit is how soon after the end of a fault there must be a 202.
	recoveryLimit = 5 * time.Second
	// gapLimit is the longest time without a 202 during a fault that the service goes on through. Most are over sooner
	// than what a short run allows for: there it is the 202s while the fault lasts that tell.
	gapLimit = 2 * time.Second
	// replayLimit is how soon after the end of the fault there must be a replay: a drain asks within 5 s whether
	// broker and primary are back.
	replayLimit = 10 * time.Second
	// goroutineTolerance is how many more a server may have at its end than one that has only been warmed up: its idle
	// connections to the management API, two goroutines each, come and go.
	goroutineTolerance = 4
)

// pace says how long the parts of a round are.
type pace struct {
	timeout time.Duration // of the server, for one request
	// load before the fault, and after the first 202 that follows it, or longer until it is as before
	warm, after  time.Duration
	strikes      int           // how often what is over at once is done in a strike
	acknowledged int           // rounds go on until there are as many; 0 for one round
	longest      time.Duration // and until this, at most
}

// result is what one fault came to, over all its rounds.
type result struct {
	Fault        string         `json:"fault"`
	About        string         `json:"about"`
	Seed         uint64         `json:"seed"`
	Rounds       int            `json:"rounds"`
	Acknowledged int            `json:"acknowledged"`
	Delivered    int            `json:"delivered,omitempty"` // to the primary, and so on: where there is a drain
	Parked       int            `json:"parked,omitempty"`
	Expired      int            `json:"expired,omitempty"`
	Lost         int            `json:"lost"`
	Corrupt      int            `json:"corrupt"`
	Unexpected   int            `json:"unexpected"`
	Duplicated   int            `json:"duplicated"`
	Undetermined int            `json:"undetermined"`
	Found        int            `json:"undetermined_found"`
	Unanswered   int            `json:"unanswered"`
	Undialled    int            `json:"failed_dials"`
	Late         int            `json:"late"`
	Excused      int            `json:"late_by_the_sender,omitempty"`
	Slowest      float64        `json:"slowest_answer_ms"`
	Recovery     float64        `json:"recovery_ms"`
	Limit        float64        `json:"recovery_limit_ms"`
	Gap          float64        `json:"longest_gap_ms"`           // without a 202, while the fault lasted
	Replay       float64        `json:"next_replay_ms,omitempty"` // after the end of the fault
	Drained      float64        `json:"drained_ms,omitempty"`     // after the end of the load
	Deadline     float64        `json:"deadline_ms"`
	Answers      map[string]int `json:"other_answers"`
	Failures     []string       `json:"failures"`
}

// strikeTimeout bounds the strike and the heal of one round; a broker that starts on a busy machine takes its time.
const strikeTimeout = 5 * time.Minute

// run does rounds of one fault and enters into out what they came to. Idle is how many goroutines a server has that was
// only warmed up.
func run(t testing.TB, broker *harness.Broker, f fault, seed uint64, p pace, idle int, out *result) {
	t.Helper()
	begin := time.Now()
	plan := plan{seed: seed, name: f.name, servers: f.servers, query: f.query, timeout: p.timeout, strikes: p.strikes,
		workers: f.workers, drain: f.drain, keys: f.keys}
	r := newRig(t, broker, plan)
	if f.function {
		r.deploy(t, plan)
	} else {
		r.serve(t, plan)
	}
	if f.workers > 0 {
		r.startDrain(t, plan)
	}
	r.rounds(t, f, p, begin, out)
	for _, s := range r.servers {
		_, dump := s.quit()
		t.Logf("%d goroutines, %d in a server that was only warmed up", goroutines(dump), idle)
		switch n := goroutines(dump); {
		case n == 0:
			out.fail("the server %s did not say where its goroutines are", s.addr)
		case n > idle+goroutineTolerance:
			out.fail("the server %s has %d goroutines, want about %d", s.addr, n, idle)
		}
	}
}

// idleGoroutines is how many a server has that was only warmed up.
func idleGoroutines(t testing.TB, broker *harness.Broker, timeout time.Duration) int {
	t.Helper()
	plan := plan{seed: 1, name: "idle", timeout: timeout}
	r := newRig(t, broker, plan)
	r.serve(t, plan)
	if _, err := r.warmUp(); err != nil {
		t.Fatal(err)
	}
	_, dump := r.servers[0].quit()
	return goroutines(dump)
}

func (out *result) fail(format string, args ...any) {
	out.Failures = append(out.Failures, fmt.Sprintf(format, args...))
}

// rounds does rounds with a rig that serves.
func (r *rig) rounds(t testing.TB, f fault, p pace, begin time.Time, out *result) {
	t.Helper()
	before, err := r.warmUp()
	if err != nil {
		t.Fatal(err)
	}
	out.Limit = harness.Millis(f.limit(p))
	for out.Rounds == 0 || r.ledger.tally().accepted < p.acknowledged && time.Since(begin) < p.longest {
		out.Rounds++
		c, err := r.round(f, p)
		if err != nil {
			out.fail("round %d: %v", out.Rounds, err)
			break
		}
		t.Logf("round %d: %+v", out.Rounds, c)
		out.Recovery, out.Gap = max(out.Recovery, harness.Millis(c.recovery.Took)), max(out.Gap, harness.Millis(c.gap))
		out.Replay, out.Drained = max(out.Replay, harness.Millis(c.replay)), max(out.Drained, harness.Millis(c.drained))
		broken := c.faults(f, p)
		if f.breaks != nil {
			broken = append(broken, f.breaks(r, c)...)
		}
		for _, fault := range broken {
			out.fail("round %d: %s", out.Rounds, fault)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	if err := r.endDrain(ctx); err != nil {
		out.fail("%v", err)
	}
	if err := r.leaks(ctx, before); err != nil {
		out.fail("%v", err)
	}
	a := r.ledger.audit()
	a.expire(r.outlet.replays().expired)
	if r.outlet != nil {
		out.Delivered, out.Parked, out.Expired = a.Delivered, a.Parked, a.Expired
	}
	out.Acknowledged, out.Lost, out.Corrupt, out.Unexpected = a.Acknowledged, a.Lost, a.Corrupt, a.Unexpected
	out.Duplicated, out.Undetermined, out.Found = a.Duplicated, a.Undetermined, a.Found
	out.Unanswered, out.Undialled, out.Late, out.Excused, out.Slowest, out.Answers = a.Unanswered, a.Undialled, a.Late,
		a.Excused, harness.Millis(a.Slowest), a.Answers
	for _, fault := range a.faults(f) {
		out.fail("%s", fault)
	}
	if len(out.Failures) > 0 {
		for _, example := range a.Examples {
			t.Log(example)
		}
		if r.outlet != nil {
			for _, w := range r.outlet.workers {
				t.Logf("the worker's log:\n%s", tail(w.log.String(), 40))
			}
		}
	}
}

// warmUp sends a little, so that what a server opens once and keeps is open, and says what is held then.
func (r *rig) warmUp() (holdings, error) {
	var h holdings
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	before := r.ledger.tally().accepted
	r.load.start(4)
	time.Sleep(100 * time.Millisecond)
	err := poll(ctx, "the first 202s", func() (bool, error) { return r.ledger.tally().accepted >= before+4, nil })
	r.load.end()
	if err != nil {
		return h, err
	}
	return h, poll(ctx, "the first connection to be listed", func() (bool, error) {
		time.Sleep(200 * time.Millisecond) // the senders' connections are on their way out
		var err error
		h, err = r.holdings()
		return h.connections > 0, err
	})
}

// figures are those of one round.
type figures struct {
	senders     int
	warm        float64         // 202s a second before the strike
	during      int             // 202s between the end of the strike and the begin of the heal
	held        time.Duration   // between these
	gap         time.Duration   // the longest without a 202, from the begin of the strike to that of the heal
	struck      tally           // from the begin of the strike to the first 202 after the end
	recovery    harness.Elapsed // from the end of the fault to the first 202 to a request that was sent after it
	recovered   bool
	last        tally         // the last of the load
	lasted      time.Duration // for so long
	all         tally         // of the whole round
	reconnected int           // connections through the proxy
	disturbed   int64         // writes through the proxy that were delayed or sliced
	duplicated  int           // messages
	left        int64         // clients

	backlog  int           // accepted requests that waited for their replay at the strike
	replays  replays       // of the whole round, without a drain all 0
	onward   int           // replays to the primary between the end of the strike and the begin of the heal
	replay   time.Duration // from the end of the fault to the next replay
	replayed bool
	parked   int           // requests
	drained  time.Duration // from the end of the load until nothing waited
}

// round is one: load, the fault, its end, more load; then the queue is read empty.
func (r *rig) round(f fault, p pace) (c figures, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), strikeTimeout)
	defer cancel()
	begin := r.ledger.tally()
	c.senders = r.senders(f)
	r.load.start(c.senders)
	defer r.load.end()
	warm, took := r.fullSpeed(p.warm)
	c.warm = float64(warm.accepted) / took.Seconds()
	if f.workers > 0 { // a run may be about to begin only
		if err := r.nextReplay(ctx); err != nil {
			return c, err
		}
	}
	before := r.now()
	if err := r.strike(ctx, f, p, &c, before); err != nil {
		return c, err
	}
	if r.after == nil {
		r.over()
	}
	select {
	case c.recovery = <-r.after:
		c.recovered = true
	case <-time.After(30 * time.Second):
		c.recovery.Took = time.Since(r.healed)
	}
	r.after = nil
	c.struck = r.ledger.tally().since(before.tally)
	if r.outlet != nil {
		c.replay, c.replayed = r.awaitReplay()
	}
	r.steady(&c, p, time.Now().Add(allowed(recoveryLimit)))
	r.load.end()
	if r.outlet == nil {
		err = r.readEmpty(ctx)
	} else {
		c.drained, err = r.drain(ctx)
	}
	c.all = r.ledger.tally().since(begin)
	r.count(&c, before)
	return c, err
}

// fullSpeed has the load go on for so long, or for half of a new budget: what is struck then is still at full speed,
// and so is what is compared with it. It returns what was answered, and how long it took.
func (r *rig) fullSpeed(d time.Duration) (got tally, took time.Duration) {
	r.load.refill()
	before, begin := r.ledger.tally(), time.Now()
	for took < d && got.accepted < budgetBurst/2 {
		time.Sleep(10 * time.Millisecond)
		got, took = r.ledger.tally().since(before), time.Since(begin)
	}
	return got, took
}

// moment is how far everything was that shows a fault.
type moment struct {
	tally              tally
	duplicated, parked int
	connections        int
	disturbed, left    int64
	replays            replays
}

func (r *rig) now() moment {
	a := r.ledger.audit()
	return moment{
		r.ledger.tally(), a.Duplicated, a.Parked, r.proxy.connections(), r.proxy.disturbed.Load(), r.left.Load(),
		r.outlet.replays(),
	}
}

// count enters what has come since.
func (r *rig) count(c *figures, since moment) {
	now := r.now()
	c.duplicated, c.parked = now.duplicated-since.duplicated, now.parked-since.parked
	c.reconnected = now.connections - since.connections
	c.disturbed, c.left = now.disturbed-since.disturbed, now.left-since.left
	c.replays = now.replays.since(since.replays)
}

// strike has the fault begin, last and end.
func (r *rig) strike(ctx context.Context, f fault, p pace, c *figures, before moment) error {
	r.ledger.countGaps()
	accepted, begin := before.tally.accepted, time.Now()
	open, arrivals := r.ledger.progress()
	c.backlog = open
	if err := f.strike(ctx, r); err != nil {
		return errors.Join(fmt.Errorf("strike: %w", err), f.heal(ctx, r))
	}
	if f.hold.to > 0 { // else the strike is all of it
		accepted, begin = r.ledger.tally().accepted, time.Now()
		_, arrivals = r.ledger.progress()
	}
	time.Sleep(r.holdFor(f, p))
	for until := time.Now().Add(showLimit); ; time.Sleep(100 * time.Millisecond) {
		now := r.ledger.tally()
		c.struck, c.during = now.since(before.tally), now.accepted-accepted
		c.held, c.gap = time.Since(begin), r.ledger.longestGap()
		_, arrived := r.ledger.progress()
		c.onward = arrived - arrivals
		r.count(c, before)
		if f.shown(*c) || time.Now().After(until) {
			break
		}
	}
	if err := f.heal(ctx, r); err != nil {
		return fmt.Errorf("heal: %w", err)
	}
	return nil
}

// showLimit is how much longer than it should a fault lasts, at most, because it does not show.
const showLimit = 15 * time.Second

// shown says whether a fault that lasts may end: what must go on meanwhile went on, and it has struck, where that can
// be told before its end.
func (f fault) shown(c figures) bool {
	return (!f.serves || c.during > 0) && (!f.early || f.shows(c))
}

// steady goes on with the load until the service is as it was, or until it should be: a first 202 may be the only one.
func (r *rig) steady(c *figures, p pace, until time.Time) {
	for time.Sleep(p.after / 2); ; {
		if c.last, c.lasted = r.fullSpeed(p.after / 2); c.isSteady() || time.Now().After(until) {
			return
		}
	}
}

// isSteady says whether nearly every answer of the last of the load was a 202. In the long run there must be enough of
// them, too: at least a quarter of those before the fault, because the machine is not quiet.
func (c figures) isSteady() bool {
	const share, part = 0.05, 0.25
	accepted, failures := float64(c.last.accepted), float64(c.last.failures())
	if accepted == 0 || failures > share*(accepted+failures) {
		return false
	}
	return wanted == 0 || accepted >= part*c.warm*c.lasted.Seconds()
}

// over marks the end of a fault: time to recover counts from here. A heal that goes on for longer than the fault calls
// it by itself, and so does a strike after which nothing is left to end.
func (r *rig) over() {
	r.healed = time.Now()
	r.ledger.awaitArrival()
	r.after = r.load.watch()
}

func (r *rig) senders(f fault) int {
	s := f.senders
	switch {
	case s.to == 0 && f.workers > 0:
		s = span[int]{16, 32}
	case s.to == 0:
		s = span[int]{16, 64}
	}
	return s.from + r.rand.IntN(s.to-s.from+1)
}

func (r *rig) holdFor(f fault, p pace) time.Duration {
	d := f.hold.from + time.Duration(r.rand.Int64N(int64(f.hold.to-f.hold.from)+1))
	if !f.fixed {
		d = time.Duration(float64(d) * p.timeout.Seconds())
	}
	return d
}

// faults says what is wrong with a round.
func (c figures) faults(f fault, p pace) (faults []string) {
	add := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	switch {
	case !c.recovered:
		add("no 202 for %s after the end of the fault", c.recovery)
	case c.recovery.Over(f.limit(p)):
		add("the first 202 came %s after the end of the fault, want %s", c.recovery, f.limit(p))
	case !c.isSteady():
		add("the service did not come back: %d 202s in the last %s and %d others, %.0f 202s a second before",
			c.last.accepted, c.lasted, c.last.failures(), c.warm)
	}
	if f.serves && (c.during == 0 || c.gap > allowed(gapLimit)) {
		add("%d 202s while the fault lasted (%s), and none for %s, want %s at most", c.during, c.held, c.gap,
			allowed(gapLimit))
	}
	if f.flows && 10*c.onward < c.during {
		add("%d replays while the fault lasted (%s), and %d 202s", c.onward, c.held, c.during)
	}
	if c.replays.early > 0 {
		add("%d requests were sent sooner than the primary had asked", c.replays.early)
	}
	if f.shut && c.during > 0 {
		add("%d requests got a 202 while nothing could be stored", c.during)
	}
	if most := f.ends * c.senders; c.all.unanswered > most {
		add("%d requests were not answered: the server ended %d times before %d senders", c.all.unanswered, f.ends,
			c.senders)
	}
	switch {
	case f.workers == 0:
	case !c.replayed:
		add("no replay for %s after the end of the fault", c.replay)
	case c.replay > allowed(replayLimit):
		add("the next replay came %s after the end of the fault, want %s", c.replay, allowed(replayLimit))
	}
	if !f.shows(c) {
		add("the fault did not strike: %+v", c)
	}
	return faults
}

// faults says what breaks the promise.
func (a audit) faults(f fault) (faults []string) {
	add := func(count int, what string) {
		if count > 0 {
			faults = append(faults, fmt.Sprintf("%d %s", count, what))
		}
	}
	add(a.Lost, "accepted requests were lost")
	add(a.Left, "accepted requests were still on their way when the drain had ended")
	add(a.Overbooked, "more requests were counted as expired than are missing")
	add(a.Corrupt, "requests are not as they were sent")
	add(a.Unexpected, "messages were never sent")
	add(a.Late, fmt.Sprintf("requests were answered late, the slowest after %s, and %d more where their senders "+
		"were late themselves", a.Slowest, a.Excused))
	switch {
	case f.ends == 0:
		add(a.Unanswered, "requests were not answered")
		add(a.Undialled, "connections to the server failed")
	case !f.killed:
		add(a.Cut, "requests that the server had in hand were not answered")
	}
	if a.Acknowledged == 0 {
		faults = append(faults, "nothing was accepted")
	}
	return faults
}
