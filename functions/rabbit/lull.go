package rabbit

import "time"

const (
	// idle is how long nothing may come before the broker is asked whether anything is ready; longer where it is far
	// away.
	idle = 25 * time.Millisecond
	// stillIdle is the wait before it is asked again when something is ready, idleAgain when [ErrDry] was told.
	stillIdle, idleAgain = 200 * time.Millisecond, time.Second
	// stuckAfter is how long something may be ready, and nothing come.
	stuckAfter = 10 * time.Second
)

// lull is the time in which nothing comes from a queue, and what the broker says meanwhile. A message may be neither
// ready on the queue nor here: the broker was about to send it when it answered, or the answer was behind it. So it
// takes two answers that nothing is ready, and a moment more in which nothing comes.
type lull struct {
	pause time.Duration // from one question to the next
	since time.Time     // when something last came, or was settled
	next  time.Time     // when to ask, or to conclude
	empty int           // answers in a row that nothing is ready
	stuck bool          // by the last answer, something has been ready for too long
}

// begin is for when something has come, or was settled and may come again.
func (l *lull) begin(now time.Time) {
	l.since, l.next, l.empty, l.stuck = now, now.Add(l.pause), 0, false
}

// later is for when a message is under way: bytes have come lately.
func (l *lull) later(now time.Time) { l.next = now.Add(l.pause) }

// verdict is what follows from the answers; nil says that another is needed. Once told, it takes new ones.
func (l *lull) verdict(now time.Time) error {
	switch {
	case l.empty >= 2:
		l.empty, l.next = 1, now.Add(max(l.pause, idleAgain))
		return ErrDry
	case l.stuck:
		l.begin(now)
		return ErrStuck
	}
	return nil
}

// heard notes an answer, with the time of its question.
func (l *lull) heard(ready int, asked, now time.Time) {
	if ready == 0 {
		l.empty, l.stuck, l.next = l.empty+1, false, now.Add(l.pause)
		return
	}
	l.empty, l.stuck, l.next = 0, asked.Sub(l.since) > stuckAfter, now.Add(max(l.pause, stillIdle))
}

// isLong says that the next step is not as soon as it would be after begin.
func (l *lull) isLong() bool { return l.empty > 0 || l.next.Sub(l.since) > l.pause }
