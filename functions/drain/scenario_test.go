package drain

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/target"
)

// says is a primary's answer, as target has it.
func says(code int, after time.Duration) target.Verdict {
	v := target.Verdict{Status: code, After: after}
	switch {
	case code == 0:
		v.Action, v.Unreachable = target.Pause, true
	case code < 300:
		v.Action = target.Done
	case after > 0, code == 429, code >= 502 && code <= 504:
		v.Action = target.Pause
	case code >= 500 && code != 508:
		v.Action = target.Fail
	case code == 400 || code == 422:
		v.Action = target.Reject
	case code == 409:
		v.Action, v.Again = target.Reject, 2
	default:
		v.Action, v.Loop = target.Refuse, code == 508
	}
	return v
}

// takes is how long a primary's answer takes, where nothing else is said.
const takes = 10 * time.Millisecond

// outageOf answers with code until it is over, and then takes all.
func outageOf(code int, lasts time.Duration) func(w *world, m *parcel) (target.Verdict, time.Duration) {
	return func(w *world, _ *parcel) (target.Verdict, time.Duration) {
		if time.Since(w.began) < lasts {
			return says(code, 0), takes
		}
		return says(200, 0), takes
	}
}

// bad answers v to those whose id begins with prefix, and takes all others.
func bad(prefix string, v target.Verdict) func(w *world, m *parcel) (target.Verdict, time.Duration) {
	return func(_ *world, m *parcel) (target.Verdict, time.Duration) {
		if strings.HasPrefix(m.id, prefix) {
			return v, takes
		}
		return says(200, 0), takes
	}
}

// scenario is a primary in trouble, and what is to be seen of it.
type scenario struct {
	name   string
	fill   func(w *world)
	probe  func(w *world) bool // alive; always, if it is not set
	answer func(w *world, m *parcel) (target.Verdict, time.Duration)
	lasts  time.Duration // the test
	within time.Duration // the last good one; forever if none is to be
	parked int           // in the end
	soon   int           // of those, in the first ten minutes, at most
	sends  int           // at most
}

const forever = 1000 * time.Hour

// one is requests of one group, the only one.
func one(n int) func(*world) { return func(w *world) { w.put(n, "a", "good") } }

// badFirst is requests of another sender on the same route, before five good ones.
func badFirst(n int) func(*world) {
	return func(w *world) { w.put(n, "a", "bad"); w.put(5, "a", "good") }
}

// badOfOne is the same, of one sender.
func badOfOne(n, good int) func(*world) {
	return func(w *world) { w.put(n+good, "a", "x"); w.name(n, "bad") }
}

// backAfter is a probe that tells the truth.
func backAfter(d time.Duration) func(*world) bool {
	return func(w *world) bool { return time.Since(w.began) > d }
}

// TestScenarios holds how soon what is good is delivered, whatever else is on the queue, how gently, and that no
// outage parks.
func TestScenarios(t *testing.T) {
	t.Parallel()
	const m, h = time.Minute, time.Hour
	twentySenders := func(w *world) {
		for i := range 20 {
			w.put(1, "a", "bad"+string(rune('a'+i)))
		}
		w.put(5, "a", "good")
	}
	for _, row := range []scenario{
		{name: "away for 10 minutes", fill: one(2000), probe: backAfter(10 * m), answer: outageOf(503, 10*m), lasts: h,
			within: 10*m + 6*s, sends: 2000},
		{name: "away for 10 minutes, not to be reached", fill: one(2000), probe: backAfter(10 * m),
			answer: outageOf(0, 10*m), lasts: h, within: 10*m + 6*s, sends: 2000},
		{name: "away for 10 minutes, and the probe lies", fill: one(2000), answer: outageOf(503, 10*m), lasts: h,
			within: 11*m + 5*s, sends: 2000 + 1500},
		{name: "404 for 6 s", fill: one(2000), answer: outageOf(404, 6*s), lasts: h, within: 65 * s, sends: 2100},
		{name: "404 for 10 minutes", fill: one(2000), answer: outageOf(404, 10*m), lasts: 2 * h, within: 21 * m,
			sends: 2700},
		{name: "404 for 40 minutes", fill: one(2000), answer: outageOf(404, 40*m), lasts: 2 * h, within: 51 * m,
			sends: 4900},
		{name: "500 for 5 minutes", fill: one(2000), answer: outageOf(500, 5*m), lasts: 2 * h, within: 16 * m,
			sends: 2700},
		{name: "a loop for 10 minutes", fill: one(2000), answer: outageOf(508, 10*m), lasts: 2 * h, within: 21 * m,
			sends: 2700},
		{name: "404 for ever", fill: one(200), answer: outageOf(404, forever), lasts: 3 * h, within: forever,
			parked: 200, soon: 0, sends: 1700},
		{name: "400 for ever", fill: one(200), answer: outageOf(400, forever), lasts: 3 * h, within: forever,
			parked: 200, soon: 20, sends: 1700},
		{name: "429 for 20 of one sender, 2 s", fill: badFirst(20), answer: bad("a-bad", says(429, 2*s)), lasts: 10 * m,
			within: 4 * s, sends: 900},
		{name: "429 for 20 of one sender, 20 s", fill: badFirst(20), answer: bad("a-bad", says(429, 20*s)),
			lasts: 10 * m, within: 4 * s, sends: 200},
		{name: "429 for 20 of one sender, an hour", fill: badFirst(20), answer: bad("a-bad", says(429, h)),
			lasts: 10 * m, within: 4 * s, sends: 50},
		{name: "429 for 200 of one sender, an hour", fill: badFirst(200), answer: bad("a-bad", says(429, h)),
			lasts: 10 * m, within: 30 * s, sends: 300},
		{name: "429 for 20 of the only sender, 2 s", fill: badOfOne(20, 5), answer: bad("bad", says(429, 2*s)),
			lasts: 10 * m, within: 60 * s, sends: 900},
		{name: "429 for 20 senders, 2 s", fill: twentySenders, answer: bad("a-bad", says(429, 2*s)), lasts: 10 * m,
			within: 20 * s, sends: 900},
		{name: "one 503 for an hour", fill: func(w *world) { w.put(1, "a", "bad"); w.put(2000, "a", "good") },
			answer: bad("a-bad", says(503, h)), lasts: 10 * m, within: 12 * s, sends: 2010},
		{name: "one 503 for an hour, of the only sender", fill: badOfOne(1, 2000), answer: bad("bad", says(503, h)),
			lasts: 10 * m, within: 12 * s, sends: 2010},
		{name: "6 that fail, of the only sender", fill: badOfOne(6, 5), answer: bad("bad", says(500, 0)), lasts: 2 * h,
			within: 20 * s, parked: 6, sends: 60},
		{name: "30 that fail, of the only sender", fill: badOfOne(30, 5), answer: bad("bad", says(500, 0)),
			lasts: 2 * h, within: 120 * s, parked: 30, sends: 300},
		{name: "1000 that fail, of the only sender", fill: badOfOne(1000, 5), answer: bad("bad", says(500, 0)),
			lasts: 12 * h, within: 30 * m, parked: 1000, sends: 9000},
		{name: "1000 that fail, of another sender", fill: badFirst(1000), answer: bad("a-bad", says(500, 0)),
			lasts: 12 * h, within: 40 * s, parked: 1000, sends: 9000},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { row.play(t) })
		})
	}
}

func (sc scenario) play(t *testing.T) {
	w := newWorld()
	sc.fill(w)
	w.answer = func(m *parcel) (target.Verdict, time.Duration) { return sc.answer(w, m) }
	if sc.probe != nil {
		w.probe = func() (bool, target.Verdict) {
			if sc.probe(w) {
				return true, done
			}
			return false, says(503, 0)
		}
	}
	w.work(t, sc.lasts)
	soon := 0
	for _, m := range w.parked {
		if at, err := time.Parse(time.RFC3339, fmt.Sprint(m.headers[HeaderParkedAt])); err != nil ||
			at.Sub(w.began) < 10*time.Minute {
			soon++
		}
	}
	at := w.lastGood()
	switch {
	case sc.within < forever && at > sc.within:
		t.Errorf("the last good one after %s, want %s", at, sc.within)
	case len(w.parked) != sc.parked:
		t.Errorf("%d parked, want %d", len(w.parked), sc.parked)
	case sc.within == forever && soon > sc.soon:
		t.Errorf("%d parked within ten minutes, want %d at most", soon, sc.soon)
	case len(w.sent) > sc.sends:
		t.Errorf("%d sends, want %d at most", len(w.sent), sc.sends)
	case w.early > 0:
		t.Errorf("%d were sent sooner than the primary asked", w.early)
	case w.lost() != 0:
		t.Errorf("%d lost", w.lost())
	}
	t.Log(at, w)
}
