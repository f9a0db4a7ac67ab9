package drain

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/target"
)

var (
	worlds = flag.Int("drain.worlds", 5, "how many random worlds the drain is run in; CI has 200 more")
	seedOf = flag.Uint64("drain.seed", 1, "the seed of the first; by the clock, if it is 0")
)

// trouble of a primary, for a time.
type period struct {
	from, to time.Duration
	verdict  target.Verdict
	route    string // of these only, if it is set
	lies     bool   // the probe says that all is well

	refused map[group]int // answers that it gave
}

// lone says that an outage has refused one request alone, of all or of its group while others are accepted. Nothing
// tells it from a request that is refused for its own sake, if its group is accepted afterwards.
func (p *period) lone(g group) bool {
	return p.verdict.Action == target.Refuse && p.refused[g] == 1 && (p.route != "" || len(p.refused) == 1)
}

// poison is a request that is not taken for its own sake.
type poison struct {
	verdict target.Verdict
	takes   time.Duration
	times   int  // so often, and then it is taken; 0 for ever
	kills   bool // the worker that replays it
	stuck   bool // the broker cannot hand it over
}

// TestRandomWorlds holds the two halves of the promise in random worlds: primaries that limit by sender, by route or
// all; outages of each shape; poison of each kind; workers that die, and connections that break. Nothing is lost,
// nothing good starves, nothing is parked that an outage refused, nothing is sent sooner than the primary asked, and
// not too often.
func TestRandomWorlds(t *testing.T) {
	first := *seedOf
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	var sum struct {
		days                             float64
		requests, lost, starved, outages int
		sends, own, lone                 int
	}
	for seed := first; seed < first+uint64(*worlds); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := randomWorld(t, rand.New(rand.NewPCG(seed, 0)))
				starved, parked, lone := w.check(t)
				sum.days += time.Since(w.began).Hours() / 24
				sum.requests += len(w.all)
				sum.sends += len(w.sent)
				sum.lost += w.lost()
				sum.starved += starved
				sum.outages += parked
				sum.lone += lone
				sum.own += len(w.parked) - parked - lone
			})
		})
	}
	t.Logf("seed %d: simulated days %.0f, requests %d, lost %d, starved %d, parked by an outage %d; parked for "+
		"their own sake %d, as the only one that an outage met %d, %.2f sends a request",
		first, sum.days, sum.requests, sum.lost, sum.starved, sum.outages, sum.own, sum.lone,
		float64(sum.sends)/float64(max(sum.requests, 1)))
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// randomWorld runs workers in a random world for some days: requests come in a few batches, most of them when the
// primary is in trouble, and for the last hours all is well.
func randomWorld(t *testing.T, r *rand.Rand) *world {
	w := newWorld()
	w.counts, w.slow = r.IntN(2) == 0, r.IntN(2) == 0
	senders, routes := 1+r.IntN(8), 1+r.IntN(3)
	w.poison = map[string]*poison{}
	share := pick(r, 0, 0, 0.01, 0.05, 0.3)
	put := func(n int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for range n {
			w.put(1, fmt.Sprint("r", r.IntN(routes)), fmt.Sprint("s", r.IntN(senders)))
			m := w.ready[len(w.ready)-1]
			if r.Float64() < share {
				p := randomPoison(r)
				w.poison[m.id], m.stuck = p, p.stuck
			}
		}
		w.signal()
	}
	sizes := pick(r, []int{1, 5, 20}, []int{5, 20, 100}, []int{20, 100, 1000})
	put(pick(r, sizes...))
	var well time.Duration     // from then on
	var counting time.Duration // outages that count attempts, one soon after the other
	for range r.IntN(6) {
		p := randomPeriod(r, well, routes, &counting)
		w.periods = append(w.periods, p)
		if r.IntN(2) == 0 {
			size := pick(r, sizes...)
			time.AfterFunc(max(p.from+time.Duration(r.Int64N(int64(max(p.to-p.from, 1))))-10*time.Second, time.Second),
				func() { put(size) })
		}
		well = p.to + time.Duration(r.IntN(600))*time.Second
		if r.IntN(2) == 0 {
			well, counting = p.to+time.Duration(3+r.IntN(18))*time.Hour, 0
		}
	}
	limits := map[string]*bucket{}
	by := pick(r, "", "", "all", "sender", "route")
	rate, burst := pick(r, 2.0, 10, 50, 200), pick(r, 1.0, 10, 50)
	asks := says(pick(r, 429, 503), pick(r, 0, time.Second, 5*time.Second))
	if asks.Status == 503 && asks.After == 0 {
		asks = says(429, 0)
	}
	latency := time.Duration(1+r.IntN(200)) * time.Millisecond
	w.answer = func(m *parcel) (target.Verdict, time.Duration) {
		takes := latency/2 + rand.N(latency)
		route, sender := strings.TrimPrefix(m.request.Target, "/"), m.request.Header.Get("Authorization")
		now := time.Since(w.began)
		for _, p := range w.periods {
			if p.from <= now && now < p.to && (p.route == "" || p.route == route) {
				p.refused[groupOf(m.request)]++
				m.outages = append(m.outages, p)
				m.answers += fmt.Sprintf("%s %d; ", now, p.verdict.Status)
				return p.verdict, takes
			}
		}
		if by != "" {
			key := map[string]string{"all": "", "sender": sender, "route": route}[by]
			if limits[key] == nil {
				limits[key] = &bucket{rate: rate, burst: burst}
			}
			if !limits[key].take(time.Now()) {
				return asks, takes
			}
		}
		if p := w.poison[m.id]; p != nil && (p.times == 0 || m.bad < p.times) {
			m.bad++
			return p.verdict, max(p.takes, takes)
		}
		return says(200, 0), takes
	}
	w.probe = func() (bool, target.Verdict) {
		now := time.Since(w.began)
		for _, p := range w.periods {
			answers := p.verdict.Status > 0 && p.verdict.Status < 500 // so somebody is there, for who probes
			if p.from <= now && now < p.to && p.route == "" && !p.lies && !answers {
				return false, p.verdict
			}
		}
		return true, done
	}
	w.live(t, r, sizes[2] <= 20, well+8*time.Hour)
	return w
}

func randomPoison(r *rand.Rand) *poison {
	p := &poison{verdict: says(pick(r, 400, 422, 409, 500, 500, 404, 403, 429, 503, 302),
		pick(r, 0, 0, 0, 2*time.Second, time.Minute, time.Hour))}
	switch r.IntN(12) {
	case 0:
		p.verdict, p.takes = target.Verdict{Action: target.Fail, Reason: "no answer within 30s"}, 30*time.Second
	case 1:
		p.kills = true
	case 4:
		p.stuck = r.IntN(4) == 0
	case 2, 3:
		if p.verdict.Action != target.Reject {
			p.times = 1 + r.IntN(3)
		}
	}
	return p
}

// randomPeriod is an outage. Those that count attempts are no longer together than the retry schedule is: one of a
// route does, while others are taken.
func randomPeriod(r *rand.Rand, from time.Duration, routes int, counting *time.Duration) *period {
	p := &period{
		from: from, to: from + pick(r, 2*time.Second, 10*time.Second, time.Minute, 10*time.Minute, 25*time.Minute,
			3*time.Hour),
		verdict: says(pick(r, 0, 0, 502, 503, 503, 429, 500, 404, 403, 302),
			pick(r, 0, 0, 0, time.Second, 30*time.Second)),
		lies: r.IntN(2) == 0, refused: map[group]int{},
	}
	if p.verdict.Status == 0 {
		p.verdict.After, p.lies = 0, false
	}
	if routes > 1 && r.IntN(3) == 0 {
		p.route = fmt.Sprint("r", r.IntN(routes))
	}
	if p.verdict.Action != target.Pause || p.route != "" && p.verdict.Status != 429 && p.verdict.After == 0 {
		p.to = min(p.to, from+25*time.Minute-*counting)
		*counting += p.to - p.from
	}
	return p
}

// restart is how long a worker that died is away.
const restart = 5 * time.Second

// live has one or two workers, which die now and then, or lose their connections.
func (w *world) live(t *testing.T, r *rand.Rand, few bool, d time.Duration) {
	workers := 1 + r.IntN(2) // two at most: check knows
	w.many = workers > 1
	losses := pick(r, 0, 0, time.Minute, 10*time.Minute) // one in about so long, in the first hours
	end := time.Now().Add(d)
	over := func() bool { return !time.Now().Before(end) }
	ended := make(chan struct{})
	for range workers {
		every := pick(r, 10*time.Second, time.Minute)
		requests := 0
		if few { // else there would not be time enough
			requests = pick(r, 0, 0, 0, 10)
		}
		go func() {
			defer func() { ended <- struct{}{} }()
			for !over() {
				ctx, cancel := context.WithCancel(context.Background())
				s := w.session()
				w.mu.Lock()
				w.sessions = append(w.sessions, s)
				w.mu.Unlock()
				s.cancel = cancel
				worker := New(w.options(), s, s)
				for !over() && ctx.Err() == nil {
					run := time.Now()
					worker.Once(ctx, Budget{Time: time.Minute, Requests: requests})
					if rest := every - time.Since(run); rest > 0 && !over() && ctx.Err() == nil {
						time.Sleep(rest)
					}
				}
				cancel()
				time.Sleep(restart)
			}
		}()
	}
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			next := time.Hour
			if losses > 0 && time.Now().Before(end.Add(-7*time.Hour)) {
				next = rand.N(2 * losses)
			}
			timer := time.NewTimer(next)
			select {
			case <-timer.C:
				if losses > 0 && time.Now().Before(end.Add(-7*time.Hour)) {
					if s := w.someSession(); s != nil {
						if rand.IntN(2) == 0 {
							s.die()
							s.cancel()
						} else {
							s.lose()
						}
					}
				}
			case <-stop:
				timer.Stop()
				return
			}
		}
	}()
	for range workers {
		<-ended
	}
	close(stop)
	<-stopped
}

// someSession is that of a worker that lives.
func (w *world) someSession() *session {
	w.mu.Lock()
	defer w.mu.Unlock()
	var living []*session
	for _, s := range w.sessions {
		if !s.dead {
			living = append(living, s)
		}
	}
	w.sessions = living
	if len(living) == 0 {
		return nil
	}
	return living[rand.IntN(len(living))]
}

// check holds the promise.
func (w *world) check(t *testing.T) (starved, parked, lone int) {
	t.Helper()
	isParked := map[string]*parcel{}
	for _, m := range w.parked {
		isParked[m.id] = m
	}
	for id := range w.all {
		_, delivered := w.delivered[id]
		switch {
		case w.poison[id] != nil, delivered:
		case isParked[id] != nil && isParked[id].lone():
			lone++
		case isParked[id] != nil:
			parked++
			t.Logf("%s was parked: %v, answers %s", id, isParked[id].headers, isParked[id].answers)
		default:
			starved++
		}
	}
	// Where nothing does well, each worker has a trial after longestProbing, which jitter shortens by a quarter at most.
	trials := int(time.Since(w.began) / (longestProbing * 3 / 4))
	if w.many {
		trials *= 2
	}
	if most := 20*len(w.all) + trials; len(w.sent) > most {
		t.Errorf("%d sends, want %d at most: %s", len(w.sent), most, w)
	}
	if w.lost() != 0 || starved+parked+w.early > 0 {
		for _, m := range w.ready[:min(len(w.ready), 5)] {
			t.Logf("ready: %s, poison %+v, headers %v, came back %d times, sent %d times", m.id, w.poison[m.id],
				m.headers, m.returns, m.sends)
		}
		var periods []period
		for _, p := range w.periods {
			periods = append(periods, *p)
		}
		t.Errorf("%d lost, %d starved, %d parked by an outage, %d sent early: %s\n%d poisonous, periods %+v", w.lost(),
			starved, parked, w.early, w, len(w.poison), periods)
	}
	return starved, parked, lone
}

// lone says that it was refused once, by an outage that nobody can tell from its own fault.
func (m *parcel) lone() bool { return len(m.outages) == 1 && m.outages[0].lone(groupOf(m.request)) }
