package harness

import (
	"testing"
	"time"
)

// TestPercentile holds the nearest rank.
func TestPercentile(t *testing.T) {
	t.Parallel()
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for _, row := range []struct {
		sorted []time.Duration
		p      int
		want   time.Duration
	}{{nil, 99, 0}, {hundred[:1], 50, 1}, {hundred[:1], 99, 1}, {hundred[:3], 50, 2}, {hundred, 50, 50},
		{hundred, 99, 99}, {hundred[:50], 99, 50}} {
		if got := Percentile(row.sorted, row.p); got != row.want {
			t.Errorf("p%d of %d values is %d, want %d", row.p, len(row.sorted), got, row.want)
		}
	}
}
