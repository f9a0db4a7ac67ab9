package drain

import (
	"testing"
	"time"
)

// TestSpacingSend holds that a request which is late leaves a little of that to the next one, and that those which did
// not wait for their turn put off the next by no more than one spacing.
func TestSpacingSend(t *testing.T) {
	t.Parallel()
	const gap = 160 * time.Millisecond
	begin := time.Now()
	for name, row := range map[string]struct {
		sent []time.Duration // after the beginning
		next time.Duration
	}{
		"the first":  {[]time.Duration{0}, gap - gap/catchUp}, // its turn was long ago
		"a bit late": {[]time.Duration{0, gap}, 2*gap - gap/catchUp},
		"late":       {[]time.Duration{0, 3 * gap}, 4*gap - gap/catchUp},
		"too early":  {[]time.Duration{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, gap + 9},
	} {
		s := spacing{gap: gap, since: begin}
		for _, at := range row.sent {
			s.send(begin.Add(at))
		}
		if got := s.next(begin).Sub(begin); got != row.next {
			t.Errorf("%s: the next after %s, want %s", name, got, row.next)
		}
	}
}
