package fault

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"fallback/test/harness"
)

func TestLedger(t *testing.T) {
	t.Parallel()
	const sum, other = 1, 2
	for _, row := range []struct {
		name string
		do   func(*ledger)
		want audit
	}{
		{"accepted and found", func(l *ledger) {
			l.sending(7, sum)
			l.record(7, "a", harness.Elapsed{Took: time.Second})
			l.delivered(7, true, sum, "a")
		}, audit{Sent: 1, Acknowledged: 1, Delivered: 1, Slowest: time.Second}},
		{"accepted and not found", func(l *ledger) {
			l.sending(7, sum)
			l.record(7, "a", harness.Elapsed{})
		}, audit{Sent: 1, Acknowledged: 1, Lost: 1}},
		{"found before the answer was read", func(l *ledger) {
			l.sending(7, sum)
			l.delivered(7, true, sum, "a")
			l.record(7, "a", harness.Elapsed{})
		}, audit{Sent: 1, Acknowledged: 1, Delivered: 1}},
		{"altered", func(l *ledger) {
			l.sending(7, sum)
			l.record(7, "a", harness.Elapsed{})
			l.delivered(7, true, other, "a")
		}, audit{Sent: 1, Acknowledged: 1, Delivered: 1, Corrupt: 1}},
		{"accepted under another id", func(l *ledger) {
			l.sending(7, sum)
			l.record(7, "a", harness.Elapsed{})
			l.delivered(7, true, sum, "b")
		}, audit{Sent: 1, Acknowledged: 1, Delivered: 1, Corrupt: 1}},
		{"twice", func(l *ledger) {
			l.sending(7, sum)
			l.record(7, "a", harness.Elapsed{})
			l.delivered(7, true, sum, "a")
			l.delivered(7, true, sum, "a")
		}, audit{Sent: 1, Acknowledged: 1, Delivered: 1, Duplicated: 1}},
		{"found under another id before the answer was read", func(l *ledger) {
			l.sending(7, sum)
			l.delivered(7, true, sum, "b")
			l.record(7, "a", harness.Elapsed{})
		}, audit{Sent: 1, Acknowledged: 1, Delivered: 1, Corrupt: 1}},
		{"twice under two ids", func(l *ledger) {
			l.sending(7, sum)
			l.delivered(7, true, sum, "a")
			l.delivered(7, true, sum, "b")
		}, audit{Sent: 1, Undetermined: 1, Found: 1, Corrupt: 1}},
		{"refused by the primary and parked", func(l *ledger) {
			l.sending(7, sum)
			l.record(7, "a", harness.Elapsed{})
			l.tried(7, true, sum, "a")
			l.parked(7, true, sum, "a")
		}, audit{Sent: 1, Acknowledged: 1, Parked: 1}},
		{"altered on the way to a primary that did not take it", func(l *ledger) {
			l.sending(7, sum)
			l.record(7, "a", harness.Elapsed{})
			l.tried(7, true, other, "a")
			l.delivered(7, true, sum, "a")
		}, audit{Sent: 1, Acknowledged: 1, Delivered: 1, Corrupt: 1}},
		{"delivered and parked", func(l *ledger) {
			l.sending(7, sum)
			l.record(7, "a", harness.Elapsed{})
			l.delivered(7, true, sum, "a")
			l.parked(7, true, sum, "a")
		}, audit{Sent: 1, Acknowledged: 1, Delivered: 1, Duplicated: 1}},
		{"published, and parked", func(l *ledger) {
			l.sending(7, sum)
			l.published(7, "a")
			l.parked(7, true, sum, "a")
			if !l.isParked(7) {
				l.unexpected++
			}
		}, audit{Sent: 1, Acknowledged: 1, Parked: 1}},
		{"published, and not found", func(l *ledger) {
			l.sending(7, sum)
			l.published(7, "a")
			if l.isParked(7) {
				l.unexpected++
			}
		}, audit{Sent: 1, Acknowledged: 1, Lost: 1}},
		{"left on a queue", func(l *ledger) {
			l.sending(7, sum)
			l.record(7, "a", harness.Elapsed{})
			l.leftOver(7, true, sum, "a")
		}, audit{Sent: 1, Acknowledged: 1, Left: 1}},
		{"only tried", func(l *ledger) {
			l.sending(7, sum)
			l.record(7, "a", harness.Elapsed{})
			l.tried(7, true, sum, "a")
		}, audit{Sent: 1, Acknowledged: 1, Lost: 1}},
		{"never sent", func(l *ledger) { l.delivered(7, true, sum, "a") }, audit{Unexpected: 1}},
		{"nobody's", func(l *ledger) {
			l.sending(0, sum)
			l.delivered(0, false, sum, "a")
		}, audit{Sent: 1, Unexpected: 1, Undetermined: 1}},
		{"refused", func(l *ledger) {
			l.sending(7, sum)
			l.refused("503", harness.Elapsed{})
		}, audit{Sent: 1, Undetermined: 1}},
		{"refused and found", func(l *ledger) {
			l.sending(7, sum)
			l.refused("503", harness.Elapsed{})
			l.delivered(7, true, sum, "a")
		}, audit{Sent: 1, Undetermined: 1, Found: 1}},
		{"no answer", func(l *ledger) {
			l.sending(7, sum)
			l.broken(7, errors.New("reset"), harness.Elapsed{Took: time.Minute})
		}, audit{Sent: 1, Undetermined: 1, Unanswered: 1, Late: 1, Slowest: time.Minute}},
		{"no answer and found", func(l *ledger) {
			l.sending(7, sum)
			l.broken(7, errors.New("reset"), harness.Elapsed{})
			l.delivered(7, true, sum, "a")
		}, audit{Sent: 1, Undetermined: 1, Found: 1, Unanswered: 1, Cut: 1}},
		{"not to be reached", func(l *ledger) { l.undial() }, audit{Undialled: 1}},
		{"late", func(l *ledger) {
			l.sending(7, sum)
			l.record(7, "a", harness.Elapsed{Took: time.Minute})
			l.delivered(7, true, sum, "a")
		}, audit{Sent: 1, Acknowledged: 1, Delivered: 1, Late: 1, Slowest: time.Minute}},
		{"no answer to a sender that was too slow", func(l *ledger) {
			l.sending(7, sum)
			l.tooSlow(7)
			l.delivered(7, true, sum, "a")
		}, audit{Sent: 1, Undetermined: 1, Found: 1, Cut: 1, Excused: 1}},
		{"late, and so was the sender", func(l *ledger) {
			l.sending(7, sum)
			l.record(7, "a", harness.Elapsed{Took: time.Minute, Late: 55 * time.Second})
			l.delivered(7, true, sum, "a")
		}, audit{Sent: 1, Acknowledged: 1, Delivered: 1, Excused: 1}},
		{"later than the sender was", func(l *ledger) {
			l.sending(7, sum)
			l.record(7, "a", harness.Elapsed{Took: time.Minute, Late: 53 * time.Second})
			l.delivered(7, true, sum, "a")
		}, audit{Sent: 1, Acknowledged: 1, Delivered: 1, Late: 1, Slowest: time.Minute}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			l := newLedger(6 * time.Second)
			row.do(l)
			got := l.audit()
			wrong := got.Lost + got.Corrupt + got.Unexpected + got.Unanswered
			if wrong > 0 && len(got.Examples) == 0 {
				t.Error("no example of what is wrong")
			}
			got.Answers, got.Examples = nil, nil
			if !equal(got, row.want) {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
			if open, _ := l.progress(); open != got.Acknowledged-got.Delivered-got.Parked {
				t.Errorf("%d open, of %+v", open, got)
			}
		})
	}
}

func equal(a, b audit) bool {
	return a.Sent == b.Sent && a.Acknowledged == b.Acknowledged && a.Lost == b.Lost && a.Corrupt == b.Corrupt &&
		a.Unexpected == b.Unexpected && a.Duplicated == b.Duplicated && a.Undetermined == b.Undetermined &&
		a.Found == b.Found && a.Unanswered == b.Unanswered && a.Undialled == b.Undialled && a.Cut == b.Cut &&
		a.Delivered == b.Delivered && a.Parked == b.Parked && a.Left == b.Left && a.Late == b.Late &&
		a.Excused == b.Excused && a.Slowest == b.Slowest
}

func TestChecksumSeesEverything(t *testing.T) {
	t.Parallel()
	header := func(check ...string) http.Header {
		return http.Header{"User-Agent": {"fault"}, checkHeader: check}
	}
	sum := checksum("POST", "/a", header("1"), []byte("b"))
	for i, other := range []uint64{
		checksum("PUT", "/a", header("1"), []byte("b")), checksum("POST", "/b", header("1"), []byte("b")),
		checksum("POST", "/a", header("1"), []byte("c")), checksum("POST", "/a", header("1"), nil),
		checksum("POST", "/ab", header("1"), nil), checksum("POST", "/a", header("2"), []byte("b")),
		checksum("POST", "/a", header(), []byte("b")), checksum("POST", "/a", header("1", "1"), []byte("b")),
		checksum("POST", "/a", nil, []byte("b")),
	} {
		if other == sum {
			t.Errorf("another request, number %d, has the same checksum", i)
		}
	}
	added := header("1")
	added.Set("X-Forwarded-For", "192.0.2.1")
	if checksum("POST", "/a", added, []byte("b")) != sum {
		t.Error("a header that was added on the way changes the checksum")
	}
}

func TestGaps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLedger(time.Minute)
		l.sending(1, 0)
		l.countGaps()
		time.Sleep(3 * time.Second)
		l.record(1, "a", harness.Elapsed{})
		time.Sleep(2 * time.Second)
		if got := l.longestGap(); got != 3*time.Second {
			t.Errorf("got %s, want 3s", got)
		}
		time.Sleep(2 * time.Second)
		if got := l.longestGap(); got != 4*time.Second {
			t.Errorf("got %s at the end, want 4s", got)
		}
	})
}

func TestNextArrival(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLedger(time.Minute)
		l.sending(1, 0)
		l.sending(2, 0)
		l.delivered(1, true, 0, "a")
		time.Sleep(time.Second)
		l.awaitArrival()
		begin := time.Now()
		time.Sleep(time.Second)
		l.parked(2, true, 0, "b")
		if !l.nextArrival().IsZero() {
			t.Error("a parked request is no delivery")
		}
		time.Sleep(time.Second)
		l.delivered(1, true, 0, "a")
		time.Sleep(time.Second)
		l.delivered(1, true, 0, "a")
		if got := l.nextArrival().Sub(begin); got != 2*time.Second {
			t.Errorf("got %s, want 2s", got)
		}
	})
}

func TestTally(t *testing.T) {
	t.Parallel()
	before := tally{accepted: 5, unanswered: 1, undialled: 1, answers: map[string]int{"503 a": 2}}
	now := tally{accepted: 8, unanswered: 2, undialled: 3, answers: map[string]int{"503 a": 2, "503 b": 4}}
	got := now.since(before)
	if got.accepted != 3 || got.failures() != 1+2+4 || len(got.answers) != 1 || got.answers["503 b"] != 4 {
		t.Errorf("got %+v", got)
	}
}
