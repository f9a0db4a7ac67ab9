package drain

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"fallback/functions/target"
)

// TestHandOver holds that messages which the broker cannot hand over keep nothing behind them, that they are told
// until they are gone, and that little is tried while nothing else is on the queue.
func TestHandOver(t *testing.T) {
	t.Parallel()
	for _, at := range [][]int{{0}, {50}, {20, 21, 60}, {99}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.put(100, "a", "good")
			for _, i := range at {
				w.ready[i].stuck = true
				w.ready[i].id = "stuck"
			}
			w.answer = func(*parcel) (target.Verdict, time.Duration) { return says(200, 0), takes }
			told := map[Trouble]bool{}
			o := w.options()
			o.Tell = func(which Trouble, on bool) { told[which] = on }
			s := w.session()
			d := New(o, s, s)
			for range 3 {
				d.Once(t.Context(), Budget{Time: time.Minute})
			}
			if len(w.delivered) != 100-len(at) || len(w.ready) != len(at) || len(w.sent) > 110 || len(w.parked) > 0 {
				t.Errorf("%d: got %s", at, w)
			}
			if !errors.Is(d.Ready(), ErrHandOver) || !told[HandOver] {
				t.Errorf("%d: ready says %v, told %v", at, d.Ready(), told)
			}
			before := w.breaks
			for range 5 { // nothing has changed
				if r := d.Once(t.Context(), Budget{Time: time.Minute}); r.End != stranded {
					t.Errorf("%d: got %+v", at, r)
				}
				time.Sleep(time.Minute)
			}
			if n := w.breaks - before; n > 0 {
				t.Errorf("%d: %d connections were broken for nothing", at, n)
			}
			w.put(10, "a", "good")
			d.Once(t.Context(), Budget{Time: time.Minute})
			if len(w.delivered) != 110-len(at) {
				t.Errorf("%d: got %s", at, w)
			}
			w.ready = slices.DeleteFunc(w.ready, func(m *parcel) bool { return m.stuck }) // an operator has seen to it
			w.put(10, "a", "good")
			w.answer = func(*parcel) (target.Verdict, time.Duration) { return says(200, 0), time.Second / 2 }
			time.Sleep(time.Minute)
			if r := d.Once(t.Context(), Budget{Time: time.Minute}); r.Delivered != 10 || r.End != empty {
				t.Errorf("%d: got %+v", at, r)
			}
			if w.cuts > 0 {
				t.Errorf("%d: %d requests lost their connection when the detour had ended", at, w.cuts)
			}
			if d.Ready() != nil || told[HandOver] {
				t.Errorf("%d: ready says %v, told %v", at, d.Ready(), told)
			}
		})
	}
}
