package fault

import (
	"errors"
	"testing"
	"time"
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
			l.record(7, "a", time.Second)
			l.delivered(7, true, sum, "a")
		}, audit{Sent: 1, Acknowledged: 1, Slowest: time.Second}},
		{"accepted and not found", func(l *ledger) {
			l.sending(7, sum)
			l.record(7, "a", 0)
		}, audit{Sent: 1, Acknowledged: 1, Lost: 1}},
		{"found before the answer was read", func(l *ledger) {
			l.sending(7, sum)
			l.delivered(7, true, sum, "a")
			l.record(7, "a", 0)
		}, audit{Sent: 1, Acknowledged: 1}},
		{"altered", func(l *ledger) {
			l.sending(7, sum)
			l.record(7, "a", 0)
			l.delivered(7, true, other, "a")
		}, audit{Sent: 1, Acknowledged: 1, Corrupt: 1}},
		{"accepted under another id", func(l *ledger) {
			l.sending(7, sum)
			l.record(7, "a", 0)
			l.delivered(7, true, sum, "b")
		}, audit{Sent: 1, Acknowledged: 1, Corrupt: 1}},
		{"twice", func(l *ledger) {
			l.sending(7, sum)
			l.record(7, "a", 0)
			l.delivered(7, true, sum, "a")
			l.delivered(7, true, sum, "a")
		}, audit{Sent: 1, Acknowledged: 1, Duplicated: 1}},
		{"never sent", func(l *ledger) { l.delivered(7, true, sum, "a") }, audit{Unexpected: 1}},
		{"nobody's", func(l *ledger) {
			l.sending(0, sum)
			l.delivered(0, false, sum, "a")
		}, audit{Sent: 1, Unexpected: 1, Undetermined: 1}},
		{"refused", func(l *ledger) {
			l.sending(7, sum)
			l.refused("503", 0)
		}, audit{Sent: 1, Undetermined: 1}},
		{"refused and found", func(l *ledger) {
			l.sending(7, sum)
			l.refused("503", 0)
			l.delivered(7, true, sum, "a")
		}, audit{Sent: 1, Undetermined: 1, Found: 1}},
		{"no answer", func(l *ledger) {
			l.sending(7, sum)
			l.broken(7, errors.New("reset"), time.Minute)
		}, audit{Sent: 1, Undetermined: 1, Unanswered: 1, Late: 1, Slowest: time.Minute}},
		{"no answer and found", func(l *ledger) {
			l.sending(7, sum)
			l.broken(7, errors.New("reset"), 0)
			l.delivered(7, true, sum, "a")
		}, audit{Sent: 1, Undetermined: 1, Found: 1, Unanswered: 1, Cut: 1}},
		{"late", func(l *ledger) {
			l.sending(7, sum)
			l.record(7, "a", time.Minute)
			l.delivered(7, true, sum, "a")
		}, audit{Sent: 1, Acknowledged: 1, Late: 1, Slowest: time.Minute}},
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
		})
	}
}

func equal(a, b audit) bool {
	return a.Sent == b.Sent && a.Acknowledged == b.Acknowledged && a.Lost == b.Lost && a.Corrupt == b.Corrupt &&
		a.Unexpected == b.Unexpected && a.Duplicated == b.Duplicated && a.Undetermined == b.Undetermined &&
		a.Found == b.Found && a.Unanswered == b.Unanswered && a.Cut == b.Cut && a.Late == b.Late && a.Slowest == b.Slowest
}

func TestChecksumSeesEverything(t *testing.T) {
	t.Parallel()
	sum := checksum("POST", "/a", []byte("b"))
	for _, other := range []uint64{
		checksum("PUT", "/a", []byte("b")), checksum("POST", "/b", []byte("b")), checksum("POST", "/a", []byte("c")),
		checksum("POST", "/a", nil), checksum("POST", "/ab", nil),
	} {
		if other == sum {
			t.Error("another request has the same checksum")
		}
	}
}
