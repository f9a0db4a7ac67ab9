package drain

import "time"

// pace is how many requests may be in flight: one at first, twice as many for each round of good answers until the
// first bad one, one more after that, half as many on each bad one.
type pace struct {
	limit, most int
	good        int           // answers since limit last changed
	steep       bool          // no answer has been bad
	resume      int           // the limit to go on with after a pause, when the first answer is good
	latency     time.Duration // the average of the last good answers
	usual       time.Duration // the least average so far; it rises slowly
}

func newPace(most int) *pace { return &pace{limit: 1, most: most, steep: true} }

// answered notes a good answer. grow says that more at the same time could help.
func (p *pace) answered(latency time.Duration, grow bool) {
	if p.resume > 0 {
		p.limit, p.resume, p.good = p.resume, 0, 0
		return
	}
	if p.slower(latency) {
		p.halve()
		return
	}
	p.good++
	if p.good < p.limit || p.limit == p.most || !grow {
		return
	}
	p.good = 0
	if p.steep {
		p.limit = min(p.limit*2, p.most)
	} else {
		p.limit++
	}
}

// slower says whether answers take more than three times what is usual, on the average of the last ones. What is usual
// rises slowly, so that a primary which has become slower for good is not held back for ever.
func (p *pace) slower(latency time.Duration) bool {
	const weight, margin, rise = 8, 20 * time.Millisecond, 512
	if p.latency == 0 {
		p.latency = latency
	}
	p.latency += (latency - p.latency) / weight
	if p.usual == 0 || p.latency < p.usual {
		p.usual = p.latency
	}
	p.usual += (p.latency - p.usual) / rise
	return p.good >= p.limit/2 && p.latency > 3*p.usual+margin
}

// halve is for a bad answer.
func (p *pace) halve() {
	p.steep, p.good, p.limit = false, 0, max(p.limit/2, 1)
}

// pause makes the next request go alone; when it is answered well, half as many as before go on.
func (p *pace) pause() {
	half := max(max(p.limit, p.resume)/2, 1)
	p.steep, p.good, p.limit, p.resume = false, 0, 1, half
}
