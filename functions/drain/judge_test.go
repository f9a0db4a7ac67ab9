package drain

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fallback/functions/target"
)

// step is an event that the judge hears of: an answer to a request, a probe, or time that goes by.
type step struct {
	name      string        // of the request; its first letter is its group
	sent      time.Duration // since the beginning
	heard     time.Duration
	verdict   target.Verdict
	badAt     time.Duration // 0: it was not answered badly before
	attempts  int
	asides    int
	conflicts int
	oldest    time.Duration // when that was sent which is in flight for longest; 0: nothing is

	probe string // or a probe: "good" or "bad"
	tick  string // or time: "dry", when nothing more is on the queue, or "on"

	want string // the rulings: name fate [wait], by comma
}

var fates = map[fate]string{deliver: "deliver", park: "park", retry: "retry", aside: "aside", requeue: "requeue"}

const s = time.Second

// TestJudge is the table of the judge's rules.
func TestJudge(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 11, 27, 8, 0, 0, 0, time.UTC)
	loop := target.Verdict{Action: target.Refuse, Status: 508, Loop: true}
	fails := func(names string, sent time.Duration, v target.Verdict, want string) (steps []step) {
		for name := range strings.FieldsSeq(names) {
			w := want
			if w != "" {
				w = name + " " + want
			}
			steps = append(steps, step{name: name, sent: sent, heard: sent + s/10, verdict: v, want: w})
			sent += s / 10
		}
		return steps
	}
	for _, row := range []struct {
		name   string
		steps  []step
		outage bool // in the end
	}{
		{"a good answer", []step{{name: "a", heard: s, verdict: says(200, 0), want: "a deliver"}}, false},
		{"a pause, and nothing else is known", []step{{name: "a", heard: s, verdict: says(503, 0), want: "a aside"}},
			false},
		{"a pause waits as long as the primary asks",
			[]step{{name: "a", heard: s, verdict: says(503, 20*s), want: "a aside 20s"}}, false},
		{"a pause again, while others do well, is an attempt", []step{
			{name: "b", sent: 2 * s, heard: 3 * s, verdict: says(200, 0), want: "b deliver"},
			{name: "a", sent: 4 * s, heard: 5 * s, badAt: s, verdict: says(503, 0), want: "a retry"},
		}, false},
		{"a pause again, and nothing was accepted since, is none", []step{
			{name: "b", sent: 0, heard: s, verdict: says(200, 0), want: "b deliver"},
			{name: "a", sent: 4 * s, heard: 5 * s, badAt: 2 * s, verdict: says(503, 0), want: "a aside"},
		}, false},
		{"nor is one that asks, ever", []step{
			{name: "b", sent: 2 * s, heard: 3 * s, verdict: says(200, 0), want: "b deliver"},
			{name: "a", sent: 4 * s, heard: 5 * s, badAt: s, verdict: says(429, 0), want: "a aside"},
			{name: "a", sent: 6 * s, heard: 7 * s, badAt: 5 * s, verdict: says(503, s), want: "a aside 1s"},
		}, false},
		{"set aside often, while others do well, for longer", []step{
			{name: "b", heard: s, verdict: says(200, 0), want: "b deliver"},
			{name: "a", sent: s, heard: 2 * s, asides: often, verdict: says(503, 0), want: "a aside 1m0s"},
			{name: "a", sent: s, heard: 2 * s, asides: veryOften, verdict: says(503, 0), want: "a aside 10m0s"},
		}, false},
		{"a failure is an attempt", []step{{name: "a", heard: s, verdict: says(500, 0), want: "a retry"}}, false},
		{"a rejection parks at once", []step{{name: "a", heard: s, verdict: says(422, 0), want: "a park"}}, false},
		{"a conflict parks at the third", []step{
			{name: "a", heard: s, verdict: says(409, 0), want: "a retry"},
			{name: "a", heard: s, attempts: 5, conflicts: 1, verdict: says(409, 0), want: "a retry"},
			{name: "a", heard: s, attempts: 6, conflicts: 2, verdict: says(409, 0), want: "a park"},
		}, false},
		{"after twenty rejections, the next may be the way's", append(
			fails("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20", 0, says(400, 0), "park"),
			step{name: "21", sent: 3 * s, heard: 4 * s, verdict: says(400, 0)},
			step{tick: "on", heard: 6 * s, want: "21 retry"},
		), false},
		{"a rejection after a good answer parks", append(append(
			fails("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20", 0, says(400, 0), "park"),
			step{name: "g", sent: 3 * s, heard: 4 * s, verdict: says(200, 0), want: "g deliver"}),
			step{name: "21", sent: 3 * s, heard: 4 * s, verdict: says(400, 0), want: "21 park"},
		), false},
		{"a refusal parks when its group is accepted afterwards", []step{
			{name: "a1", heard: s, verdict: says(404, 0)},
			{name: "a2", sent: s + 1, heard: 2 * s, verdict: says(200, 0), want: "a1 park, a2 deliver"},
		}, false},
		{"but not by what was sent before it was heard", []step{
			{name: "a1", heard: s, verdict: says(404, 0)},
			{name: "a2", sent: s - 1, heard: 2 * s, verdict: says(200, 0), want: "a2 deliver"},
			{tick: "on", heard: 3 * s, want: "a1 retry"},
		}, false},
		{"nor by another group", []step{
			{name: "a1", heard: s, verdict: says(404, 0)},
			{name: "b1", sent: s + 1, heard: 2 * s, verdict: says(200, 0), want: "b1 deliver"},
			{tick: "on", heard: 3 * s, want: "a1 retry"},
		}, false},
		{"several refusals without a good answer between them are attempts", []step{
			{name: "a1", heard: s, verdict: says(404, 0)},
			{name: "a2", heard: s, verdict: says(404, 0)},
			{name: "a3", sent: s + 1, heard: 2 * s, verdict: says(200, 0), want: "a1 retry, a2 retry, a3 deliver"},
		}, false},
		{"it parks when nothing is in flight that was sent before that", []step{
			{name: "a1", heard: s, verdict: says(404, 0)},
			{name: "a2", sent: s + s/2, heard: 2 * s, oldest: s / 2, verdict: says(200, 0), want: "a2 deliver"},
			{name: "b1", sent: s / 2, heard: 2 * s, oldest: s + s/4, verdict: says(200, 0), want: "b1 deliver"},
			{name: "b2", sent: s + s/4, heard: 3 * s, oldest: 2 * s, verdict: says(200, 0), want: "a1 park, b2 deliver"},
		}, false},
		{"one that was refused before does not wait for those", []step{
			{name: "b1", sent: s, heard: 2 * s, verdict: says(200, 0), want: "b1 deliver"},
			{name: "a1", sent: 3 * s, heard: 4 * s, badAt: s, verdict: says(404, 0)},
			{name: "a2", sent: 4*s + 1, heard: 5 * s, oldest: s / 2, verdict: says(200, 0), want: "a1 park, a2 deliver"},
		}, false},
		{"another refusal among that shows that both are of an outage", []step{
			{name: "a1", heard: s, verdict: says(404, 0)},
			{name: "a2", sent: s + s/2, heard: 2 * s, oldest: s / 2, verdict: says(200, 0), want: "a2 deliver"},
			{name: "b1", sent: s / 2, heard: 2 * s, verdict: says(404, 0), want: "a1 retry"},
			{name: "b2", sent: 2*s + 1, heard: 3 * s, verdict: says(200, 0), want: "b1 retry, b2 deliver"},
		}, false},
		{"a refusal waits for less where nothing more is", []step{
			{name: "a1", heard: s, verdict: says(404, 0)},
			{tick: "on", heard: 2 * s},
			{tick: "dry", heard: 2 * s, want: "a1 retry"},
		}, false},
		{"a loop is the request's own when anything is accepted afterwards", []step{
			{name: "a1", heard: s, verdict: loop},
			{name: "b1", sent: s + 1, heard: 2 * s, verdict: says(200, 0), want: "a1 park, b1 deliver"},
		}, false},
		{"and else no attempt", []step{{name: "a1", heard: s, verdict: loop},
			{tick: "on", heard: 3 * s, want: "a1 aside"}}, false},
		{"several loops are no attempts when others are accepted afterwards", []step{
			{name: "a1", heard: s, verdict: loop},
			{name: "a2", heard: s, verdict: loop},
			{name: "b1", sent: s + 1, heard: 2 * s, verdict: says(200, 0), want: "a1 aside, a2 aside, b1 deliver"},
		}, false},
		{"but are when that is so again", []step{
			{name: "b1", heard: 2 * s, verdict: says(200, 0), want: "b1 deliver"},
			{name: "a1", sent: 3 * s, heard: 4 * s, badAt: s, verdict: loop},
			{name: "a2", sent: 3 * s, heard: 4 * s, badAt: s, verdict: loop},
			{name: "b2", sent: 5 * s, heard: 6 * s, verdict: says(200, 0), want: "a1 retry, a2 retry, b2 deliver"},
		}, false},
		{"five bad answers are everybody's", fails("a b c d e", 0, says(500, 0), "retry"), true},
		{"four are not", fails("a b c d", 0, says(500, 0), "retry"), false},
		{"nor five, when something was accepted since they were sent", append(
			[]step{{name: "g", sent: s, heard: 2 * s, verdict: says(200, 0), want: "g deliver"}},
			fails("a b c d e", s, says(500, 0), "retry")...,
		), false},
		{"nor five that are known", []step{
			{name: "g", sent: s, heard: 2 * s, verdict: says(200, 0), want: "g deliver"},
			{name: "a", sent: 3 * s, heard: 4 * s, badAt: 1, verdict: says(500, 0), want: "a retry"},
			{name: "b", sent: 3 * s, heard: 4 * s, badAt: 1, verdict: says(500, 0), want: "b retry"},
			{name: "c", sent: 3 * s, heard: 4 * s, badAt: 1, verdict: says(500, 0), want: "c retry"},
			{name: "d", sent: 3 * s, heard: 4 * s, badAt: 1, verdict: says(500, 0), want: "d retry"},
			{name: "e", sent: 3 * s, heard: 4 * s, badAt: 1, verdict: says(500, 0), want: "e retry"},
		}, false},
		{"one that cannot be reached is everybody's; it goes back when the probe is bad, too", []step{
			{name: "a", heard: s, verdict: says(0, 0)},
			{probe: "bad", heard: 2 * s, want: "a requeue"},
		}, true},
		{"and aside when the probe is good, so that another is the next", []step{
			{name: "a", heard: s, verdict: says(0, 0)},
			{probe: "good", heard: 2 * s, want: "a aside"},
		}, true},
		{"a good answer on trial ends it", []step{
			{name: "a", heard: s, verdict: says(0, 0)},
			{probe: "bad", heard: 2 * s, want: "a requeue"},
			{probe: "good", heard: 3 * s},
			{name: "a", sent: 4 * s, heard: 5 * s, verdict: says(200, 0), want: "a deliver"},
		}, false},
		{"but not one that was sent before", []step{
			{name: "a", heard: s, verdict: says(0, 0)},
			{name: "b", sent: 0, heard: 2 * s, verdict: says(200, 0), want: "b deliver"},
		}, true},
		{"what cannot be sent is parked, however many there are", slices.Concat(
			fails(strings.Repeat("a ", mostRejected+5), s, target.Verdict{Action: target.Reject}, "park"),
			fails("b", 9*s, says(400, 0), "park"),
		), false},
		{"a bad one on trial holds on", []step{
			{name: "a", heard: s, verdict: says(0, 0)},
			{probe: "good", heard: 2 * s, want: "a aside"},
			{name: "b", sent: 3 * s, heard: 4 * s, verdict: says(503, 0), want: "b aside"},
		}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			j := judge{groups: newGroups()}
			for i, st := range row.steps {
				now := begin.Add(st.heard)
				var rulings []ruling
				switch {
				case st.probe != "":
					rulings = j.probed(st.probe == "good", now)
				case st.tick != "":
					rulings = j.tick(st.tick == "dry", now)
				default:
					it := &item{key: st.name, group: group(st.name[0]), sent: begin.Add(st.sent), verdict: st.verdict}
					it.attempts, it.asides, it.conflicts = st.attempts, st.asides, st.conflicts
					if st.badAt > 0 {
						it.badAt = begin.Add(st.badAt)
					}
					j.sent(it, it.sent)
					oldest := now
					if st.oldest > 0 {
						oldest = begin.Add(st.oldest)
					}
					rulings = j.hear(it, oldest, now)
				}
				var got []string
				for _, r := range rulings {
					text := r.key + " " + fates[r.fate]
					if r.wait > 0 {
						text += fmt.Sprint(" ", r.wait)
					}
					got = append(got, text)
				}
				slices.Sort(got)
				if said := strings.Join(got, ", "); said != st.want {
					t.Errorf("step %d: got %q, want %q", i+1, said, st.want)
				}
			}
			if j.outage.on != row.outage {
				t.Errorf("an outage: %t, want %t", j.outage.on, row.outage)
			}
		})
	}
}
