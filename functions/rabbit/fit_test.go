package rabbit

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	amqp "github.com/rabbitmq/amqp091-go"
)

// TestFit holds that a message whose headers leave no room for ours in a frame can be moved, and what goes for that,
// in order.
func TestFit(t *testing.T) {
	t.Parallel()
	const frame = 128 << 10
	room := frame - besideHeaders
	ours := map[string]any{"fallback-attempt": int64(3), "fallback-reason": strings.Repeat("é", 2000),
		"fallback-parked-at": "2026-11-27T08:00:00Z"}
	for _, row := range []struct {
		name             string
		metadata, others int // bytes
		want             []string
	}{
		{"all fits", 1000, 1000, []string{"fallback", "fallback-attempt", "fallback-parked-at", "fallback-reason",
			"other"}},
		{"a shorter reason fits", 1000, room - 1000 - 600,
			[]string{"fallback", "fallback-attempt", "fallback-parked-at", "fallback-reason", "other"}},
		{"without others", 1000, room, []string{"fallback", "fallback-attempt", "fallback-parked-at",
			"fallback-reason"}},
		{"the request, and numbers", room - 100, 1000, []string{"fallback", "fallback-attempt"}},
	} {
		table := amqp.Table{"fallback": strings.Repeat("m", row.metadata),
			"other": []any{amqp.Table{"x": strings.Repeat("o", row.others)}}}
		maps.Copy(table, ours)
		fit(table, ours, frame)
		if got := slices.Sorted(maps.Keys(table)); !slices.Equal(got, row.want) || tableSize(table) > room {
			t.Errorf("%s: %v are left, want %v; %d bytes, there is room for %d", row.name, got, row.want,
				tableSize(table), room)
		}
	}
}

// TestMoveFits holds that no frame of a moved message is larger than the broker takes.
func TestMoveFits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		sizes := []int{100 << 10, 119 << 10, 123 << 10, 126 << 10, 127<<10 + 500}
		for _, size := range sizes {
			p.onConsume = sends(field("n", 'S', long(make([]byte, size))))
			s := sourceOn(t, p)
			take(t, s, 1)
			if err := next(t, s).Move(t.Context(), "parked",
				map[string]any{"fallback-reason": strings.Repeat("r", 3000),
					"fallback-attempt": int64(1)}); err != nil {
				t.Fatal(err)
			}
			s.Close()
		}
		for i, m := range p.published() {
			if len(m.header)+aroundPayload > frameSize {
				t.Errorf("headers of %d bytes were moved with a frame of %d", sizes[i], len(m.header)+aroundPayload)
			}
		}
	})
}
