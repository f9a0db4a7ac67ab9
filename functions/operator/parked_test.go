package operator

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// TestMissing holds that an id is said not to be on the queue only when all of the queue was looked at.
func TestMissing(t *testing.T) {
	t.Parallel()
	if MostUnacked > math.MaxUint16 {
		t.Error("AMQP cannot say so many, and the client library cuts the number")
	}
	for _, row := range []struct {
		name            string
		found           []string
		passed, waiting int
		want            string
	}{
		{"both found", []string{"a", "b"}, 0, 2, ""},
		{"both found in front of more than are looked at", []string{"a", "b"}, MostUnacked, 2 * MostUnacked, ""},
		{"all looked at", []string{"a"}, 8, 9, "not on the queue: b ("},
		{"no more than are looked at", []string{"a"}, MostUnacked, MostUnacked + 1, "not on the queue: b ("},
		{"one more", []string{"a"}, MostUnacked, MostUnacked + 2,
			"not among the first 30001 of the 30002 on the queue, and no more are looked at: b ("},
		{"one more, and none found", nil, MostUnacked, MostUnacked + 1,
			"not among the first 30000 of the 30001 on the queue, and no more are looked at: a, b ("},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			err := Selection{IDs: []string{"a", "b"}}.missing(row.found, row.passed, row.waiting)
			if got := fmt.Sprint(err); !strings.HasPrefix(got, row.want) || (err == nil) != (row.want == "") {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
}
