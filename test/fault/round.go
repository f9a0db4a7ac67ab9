package fault

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"fallback/test/harness"
)

// recoveryLimit is how soon after the end of a fault there must be a 202.
const recoveryLimit = 5 * time.Second

// pace says how long the parts of a round are.
type pace struct {
	timeout      time.Duration // of the server, for one request
	warm, after  time.Duration // load before the fault, and after the first 202 that follows it
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
	Lost         int            `json:"lost"`
	Corrupt      int            `json:"corrupt"`
	Unexpected   int            `json:"unexpected"`
	Duplicated   int            `json:"duplicated"`
	Undetermined int            `json:"undetermined"`
	Found        int            `json:"undetermined_found"`
	Unanswered   int            `json:"unanswered"`
	Late         int            `json:"late"`
	Slowest      float64        `json:"slowest_answer_ms"`
	Recovery     float64        `json:"recovery_ms"`
	Deadline     float64        `json:"deadline_ms"`
	Answers      map[string]int `json:"other_answers"`
	Failures     []string       `json:"failures"`
}

// strikeTimeout bounds the strike and the heal of one round; a broker that starts on a busy machine takes its time.
const strikeTimeout = 3 * time.Minute

// run does rounds of one fault and says what they came to.
func run(t testing.TB, broker *harness.Broker, f fault, seed uint64, p pace) result {
	t.Helper()
	begin := time.Now()
	plan := plan{seed: seed, name: f.name, servers: f.servers, query: f.query, timeout: p.timeout}
	r := newRig(t, broker, plan)
	if f.function {
		r.deploy(t, plan)
	} else {
		r.serve(t, plan)
	}
	return r.rounds(t, f, p, begin)
}

// rounds does rounds with a rig that serves.
func (r *rig) rounds(t testing.TB, f fault, p pace, begin time.Time) result {
	t.Helper()
	out := result{Fault: f.name, About: f.about, Seed: r.load.seed, Deadline: ms(p.timeout), Failures: []string{}}
	fail := func(format string, args ...any) { out.Failures = append(out.Failures, fmt.Sprintf(format, args...)) }
	before, err := r.warmUp()
	if err != nil {
		t.Fatal(err)
	}
	for out.Rounds == 0 || r.ledger.settled() < p.acknowledged && time.Since(begin) < p.longest {
		out.Rounds++
		c, err := r.round(f, p)
		if err != nil {
			fail("round %d: %v", out.Rounds, err)
			break
		}
		out.Recovery = max(out.Recovery, ms(c.recovery))
		for _, fault := range c.faults(f, p) {
			fail("round %d: %s", out.Rounds, fault)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout+20*time.Second)
	defer cancel()
	if err := r.leaks(ctx, before); err != nil {
		fail("%v", err)
	}
	a := r.ledger.audit()
	out.Acknowledged, out.Lost, out.Corrupt, out.Unexpected = a.Acknowledged, a.Lost, a.Corrupt, a.Unexpected
	out.Duplicated, out.Undetermined, out.Found = a.Duplicated, a.Undetermined, a.Found
	out.Unanswered, out.Late, out.Slowest, out.Answers = a.Unanswered, a.Late, ms(a.Slowest), a.Answers
	for _, fault := range a.faults(f) {
		fail("%s", fault)
	}
	if len(out.Failures) > 0 {
		for _, example := range a.Examples {
			t.Log(example)
		}
	}
	return out
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// warmUp sends a little, so that what a server opens once and keeps is open, and says what is held then.
func (r *rig) warmUp() (holdings, error) {
	r.load.start(4)
	time.Sleep(100 * time.Millisecond)
	r.load.end()
	var h holdings
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	return h, poll(ctx, "the first connection to be listed", func() (bool, error) {
		time.Sleep(200 * time.Millisecond) // the senders' connections are on their way out
		var err error
		h, err = r.holdings()
		return h.connections > 0, err
	})
}

// figures are those of one round.
type figures struct {
	warm, during int           // 202s before the strike, and between its end and the begin of the heal
	held         time.Duration // between these
	recovery     time.Duration // from the end of the fault to the next 202
	recovered    bool
	refused      int // requests without a 202
	reconnected  int // connections through the proxy
	duplicated   int // messages
	left         int // clients
}

// round is one: load, the fault, its end, more load; then the queue is read empty.
func (r *rig) round(f fault, p pace) (c figures, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), strikeTimeout)
	defer cancel()
	before := r.ledger.audit()
	connections := r.proxy.connections()

	r.load.start(r.senders(f))
	defer r.load.end()
	time.Sleep(p.warm)
	c.warm = r.ledger.settled() - before.Acknowledged

	accepted, begin := r.ledger.settled(), time.Now()
	if err := f.strike(ctx, r); err != nil {
		return c, errors.Join(fmt.Errorf("strike: %w", err), f.heal(ctx, r))
	}
	if f.hold.to > 0 { // else the strike is all of it
		accepted, begin = r.ledger.settled(), time.Now()
	}
	time.Sleep(r.holdFor(f, p))
	c.during, c.held = r.ledger.settled()-accepted, time.Since(begin)
	if err := f.heal(ctx, r); err != nil {
		return c, fmt.Errorf("heal: %w", err)
	}
	if r.after == nil {
		r.over()
	}
	select {
	case at := <-r.after:
		c.recovery, c.recovered = at.Sub(r.healed), true
	case <-time.After(30 * time.Second):
		c.recovery = time.Since(r.healed)
	}
	r.after = nil
	time.Sleep(p.after)
	err = r.settle(ctx, &c, before, connections)
	return c, err
}

// over marks the end of a fault: time to recover counts from here. A heal that goes on for longer than the fault calls
// it by itself.
func (r *rig) over() {
	r.healed = time.Now()
	r.after = r.load.watch()
}

// settle ends the load and reads the queue empty.
func (r *rig) settle(ctx context.Context, c *figures, before audit, connections int) error {
	r.load.end()
	err := r.readEmpty(ctx)
	after := r.ledger.audit()
	c.refused = after.Undetermined - before.Undetermined
	c.duplicated = after.Duplicated - before.Duplicated
	c.reconnected = r.proxy.connections() - connections
	c.left = r.half
	return err
}

func (r *rig) senders(f fault) int {
	s := f.senders
	if s.to == 0 {
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
	if !c.recovered {
		add("no 202 for %s after the end of the fault", c.recovery)
	} else if c.recovery > recoveryLimit {
		add("the first 202 came %s after the end of the fault, want %s", c.recovery, recoveryLimit)
	}
	if f.serves && c.during == 0 {
		add("no 202 while the fault lasted (%s)", c.held)
	}
	if f.shut && c.during > 0 {
		add("%d requests got a 202 while nothing could be stored", c.during)
	}
	if !c.shows(f.shows, p) {
		add("the fault did not strike: %+v", c)
	}
	return faults
}

// shows says whether a round has the marks of its fault.
func (c figures) shows(e evidence, p pace) bool {
	switch e {
	case refusals:
		return c.refused > 0
	case reconnects:
		return c.reconnected > 0
	case duplicates:
		return c.duplicated > 0
	case leavers:
		return c.left > 0
	default: // slowness
		return float64(c.during)/c.held.Seconds() < float64(c.warm)/p.warm.Seconds()/2
	}
}

// faults says what breaks the promise.
func (a audit) faults(f fault) (faults []string) {
	add := func(count int, what string) {
		if count > 0 {
			faults = append(faults, fmt.Sprintf("%d %s", count, what))
		}
	}
	add(a.Lost, "accepted requests were lost")
	add(a.Corrupt, "requests are not as they were sent")
	add(a.Unexpected, "messages were never sent")
	add(a.Late, fmt.Sprintf("requests were answered late, the slowest after %s", a.Slowest))
	switch {
	case !f.unanswered:
		add(a.Unanswered, "requests were not answered")
	case !f.killed:
		add(a.Cut, "requests that the server had in hand were not answered")
	}
	if a.Acknowledged == 0 {
		faults = append(faults, "nothing was accepted")
	}
	return faults
}
