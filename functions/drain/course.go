package drain

import (
	"slices"
	"time"

	"fallback/functions/target"
)

// arrive is for a request that the feeder hands on.
func (r *run) arrive(it *item, now time.Time) {
	r.largest = max(it.size, r.largest-r.largest/32) // what was large is forgotten slowly
	r.feeder.took(it)
	r.judge.search.behind--
	r.books.arrived(it)
	r.beware(it)
	if r.replace(it) {
		return
	}
	ruled, ok := r.remembered.recall(it)
	if !ok {
		ruled, ok = r.ruleUnsent(it, now)
	}
	if ok {
		r.unsent++
	} else {
		r.unsent = 0
		ruled, ok = r.ruleSuspect(it)
	}
	r.met = r.met || it.alone
	switch {
	case ok:
		r.rule(ruled)
	case it.alone && it.notBefore.After(now):
		r.rule(ruling{item: it, fate: aside, wait: it.notBefore.Sub(now)})
	case it.alone:
		r.solo = it
	default:
		r.admit(it, now)
	}
}

// replace says whether this is a redelivery of a request that is still in flight. That one takes the new delivery, to
// be settled by it. The loss may not have been noticed yet, if no feeder ran.
func (r *run) replace(it *item) bool {
	for _, old := range r.flying {
		same := old.key == it.key && old.fingerprint == it.fingerprint && old.attempts == it.attempts &&
			old.redriven.Equal(it.redriven)
		if same && (old.epoch < it.epoch || old.delivery.Lost()) {
			it.alone = old.alone
			old.delivery, old.marks, old.taken, old.round, old.epoch = it.delivery, it.marks, it.taken, it.round,
				it.epoch
			return true
		}
	}
	return false
}

// admit sends a request, or keeps it, or has it set aside.
func (r *run) admit(it *item, now time.Time) {
	turn := r.judge.admit(it, r.flying, r.pace.limit, now)
	switch {
	case turn.aside,
		turn.at.After(now) && turn.ofGroup && (len(r.kept) >= lookahead/2 || r.keptOf(it.group) >= mostKept):
		wait := turn.at.Sub(now)
		if t := r.judge.groups.of(it.group); t != nil && r.judge.othersDidWell(it.group, now) {
			wait = t.setAside(wait, r.options.Retries, now)
		}
		r.judge.search.moved++
		r.rule(ruling{item: it, fate: aside, wait: wait})
	case now.Sub(it.taken) > longestUnacked:
		r.rule(ruling{item: it, fate: requeue})
	case turn.at.After(now) || r.maySend(now).After(now):
		it.turn = turn.at
		r.kept = append(r.kept, it)
	default:
		r.launch(it, now)
	}
}

// launch sends a request.
func (r *run) launch(it *item, now time.Time) {
	r.unspent = max(r.unspent-1, -1)
	r.permit.use()
	r.judge.sent(it, now)
	r.flying = append(r.flying, it)
	// By value: a redelivery may replace the delivery and the marks meanwhile.
	go r.replay(it, it.delivery, target.Try{Attempt: it.attempts + 1, Redelivered: it.returns})
}

// sendKept is for those whose turn may have come, or has moved away.
func (r *run) sendKept(now time.Time) {
	kept := r.kept
	r.kept = nil
	for _, it := range kept {
		r.admit(it, now)
	}
}

// requeueHeld requeues those that no queue takes, and that have been with us for too long: they come again, and are
// tried again.
func (r *run) requeueHeld(now time.Time) {
	for len(r.held) > 0 && now.Sub(r.held[0].taken) > longestUnacked {
		r.rule(ruling{item: r.held[0], fate: requeue})
		r.held = r.held[1:]
	}
}

func (r *run) requeueAllHeld() {
	for _, it := range r.held {
		r.rule(ruling{item: it, fate: requeue})
	}
	r.held = nil
}

func (r *run) keptOf(g group) (n int) {
	for _, it := range r.kept {
		if it.group == g {
			n++
		}
	}
	return n
}

// answer is for a request that was in flight.
func (r *run) answer(a answer, now time.Time) {
	it, v := a.item, a.verdict
	i := slices.Index(r.flying, it)
	if i < 0 {
		return // it was given up
	}
	r.flying = slices.Delete(r.flying, i, i+1)
	if it.overdue {
		r.judge.unmarkOverdue(it)
	}
	alone := it == r.solo
	if alone {
		r.solo = nil
	}
	if a.lost {
		if r.unspent >= 0 { // there is a limit
			r.unspent++
		}
		r.unlinked(it)
		return
	}
	it.verdict = v
	if r.heard(v); v.Loop {
		r.books.note("the way to the primary is a loop", v.Reason)
	}
	if r.isCutOff(it.verdict) {
		r.rule(ruling{item: it, fate: requeue})
		return
	}
	if alone { // it went well
		it.alone = false
		r.solos++
	}
	before := r.judge.outage
	closed := before.closed()
	rulings := r.judge.hear(it, r.oldestSent(now), now)
	r.tellAway(before, v)
	switch {
	case it.verdict.Action == target.Done:
		r.pace.answered(now.Sub(it.sent), !r.permit.waits(now))
	case r.judge.outage.closed() && !closed:
		r.pace.pause()
		r.books.paused(it.verdict.Reason)
	case it.verdict.Action == target.Fail, it.verdict.Action == target.Pause && it.verdict.After == 0:
		r.pace.halve()
	}
	r.rule(rulings...)
}

// tellAway tells whether the primary is away, after an answer. A rejection shows that it was reached, which
// says too little in an outage that bad answers have begun.
func (r *run) tellAway(before outage, v target.Verdict) {
	switch after := &r.judge.outage; {
	case !after.on, after.opening && rejects(v):
		r.troubles.set(PrimaryAway, false, "")
	case after.opening:
	case !before.on || before.opening || !rejects(v):
		r.troubles.set(PrimaryAway, true, v.Reason)
	}
}

// rule settles requests as it was ruled.
func (r *run) rule(rulings ...ruling) {
	for _, one := range rulings {
		r.settling++
		if one.reason == "" {
			one.reason = one.verdict.Reason
		}
		go func() {
			s := r.settle(r.wrapUp, one, time.Now())
			r.post(func(now time.Time) { r.settled(s, now) })
		}()
	}
}

// unlinked is for a request whose connection is found to be gone: so are those of others.
func (r *run) unlinked(it *item) {
	if it.epoch == r.feeder.epoch {
		r.feeder.stop()
		r.feeder.lose(time.Now())
		r.lose()
	}
}

// lose is for a source that was lost. The broker requeues all that is unacked. They are nacked too: if only the
// consumer has gone, the channel lives on.
func (r *run) lose() {
	now := time.Now()
	r.returned++
	r.remembered.lose(now)
	for _, it := range r.judge.suspended {
		fate := retry
		if isPause(it) {
			fate = aside
		}
		r.remembered.note(settled{ruling: ruling{item: it, fate: fate, reason: it.verdict.Reason}})
		r.rule(ruling{item: it, fate: requeue})
	}
	r.judge.suspended = nil
	if r.solo != nil && r.solo.sent.IsZero() {
		r.rule(ruling{item: r.solo, fate: requeue})
		r.solo = nil
	}
	r.careful = max(r.careful, r.feeder.unacked) + 1 // it may have been lost for one of the unacked, or for the next
	r.requeueKept()
	r.requeueAllHeld()
}

// requeueKept requeues those that were not sent.
func (r *run) requeueKept() {
	for _, it := range r.kept {
		r.rule(ruling{item: it, fate: requeue})
	}
	r.kept = nil
}

// giveUp settles all that is unacked and not in flight: the run ends.
func (r *run) giveUp() {
	r.requeueKept()
	r.requeueAllHeld()
	if r.solo != nil && r.solo.sent.IsZero() { // requeued, it would count as come back once more
		r.rule(ruling{item: r.solo, fate: aside})
		r.solo = nil
	}
	r.rule(r.judge.release(isPause, aside)...)
	r.rule(r.judge.release(func(*item) bool { return true }, retry)...)
}
