package main

import (
	"strings"
	"testing"

	"fallback/functions/operator"
)

// TestPrintQueues holds that what is not known is a dash and never a 0, and that columns which nobody fills are left
// out.
func TestPrintQueues(t *testing.T) {
	t.Parallel()
	stats := &operator.QueueStats{State: "running", Unacked: 2, In: 1.25, Out: 0.5}
	for _, row := range []struct {
		name string
		rows []operator.QueueRow
		want string
	}{
		{"over AMQP", []operator.QueueRow{{Queue: "Main", Ready: 3, Consumers: 1},
			{Queue: "Parked", Error: "not visible to this user"}},
			"QUEUE READY CONSUMERS\nMain 3 1\nParked - - not visible to this user\n"},
		{"with statistics", []operator.QueueRow{{Queue: "Main", Ready: 3, Consumers: 1, QueueStats: stats},
			{Queue: "Parked", Error: "no statistics yet"}},
			"QUEUE READY UNACKED CONSUMERS IN/S OUT/S\nMain 3 2 1 1.2 0.5\nParked - - - - - no statistics yet\n"},
		{"ready is known before the rest", []operator.QueueRow{{Queue: "Main", Ready: 3},
			{Queue: "Parked", QueueStats: &operator.QueueStats{State: "down"}}},
			"QUEUE READY UNACKED CONSUMERS IN/S OUT/S\nMain 3 - 0 - -\nParked 0 0 0 0.0 0.0 down\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var out, got strings.Builder
			if err := printQueues(&out, row.rows); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(out.String()) {
				got.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
			}
			if got.String() != row.want {
				t.Errorf("got\n%s\nwant\n%s", got.String(), row.want)
			}
		})
	}
}
