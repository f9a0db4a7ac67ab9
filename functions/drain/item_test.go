package drain

import (
	"context"
	"fmt"
	"testing"
	"time"

	"fallback/functions/envelope"
)

// told is a delivery with some headers.
type told map[string]any

func (t told) Header(name string) string {
	if v, ok := t[name]; ok {
		return fmt.Sprint(v)
	}
	return ""
}

func (told) Request() (*envelope.Request, error)                { return &envelope.Request{ID: "1"}, nil }
func (told) Identify() string                                   { return "1" }
func (told) Size() int                                          { return 0 }
func (told) Done() error                                        { return nil }
func (told) Requeue() error                                     { return nil }
func (told) Lost() bool                                         { return false }
func (told) Forget()                                            {}
func (told) Move(context.Context, string, map[string]any) error { return nil }

// TestMarks holds that marks are read as they were written, and that what somebody else wrote in their place is none.
func TestMarks(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 8, 32, 51, 123456789, time.UTC)
	m := marks{attempts: 3, asides: 2, badAt: at, notBefore: at.Add(time.Hour), reason: "422", alone: true}
	if got := marksOf(told(m.headers())); got != m {
		t.Errorf("got %+v, want %+v", got, m)
	}
	for name, row := range map[string]struct {
		headers told
		want    marks
	}{
		"none":                     {told{}, marks{}},
		"a number of 32 bits":      {told{HeaderAttempt: int32(3)}, marks{attempts: 3}},
		"less than none":           {told{HeaderAttempt: int64(-1), HeaderAsides: int32(-5)}, marks{}},
		"more than anybody counts": {told{HeaderAttempt: int64(1) << 62}, marks{attempts: 1 << 20}},
		"no number":                {told{HeaderAttempt: "some", headerReturns: nil}, marks{}},
		"no time": {told{HeaderBadAt: "yesterday", HeaderNotBefore: int64(7), HeaderRedriven: nil},
			marks{}},
		"an operator's time": {told{HeaderRedriven: "2026-11-22T08:32:51Z"},
			marks{redriven: at.Truncate(time.Second)}},
		"the broker's count": {told{headerReturns: int64(4)}, marks{returns: 4}},
	} {
		if got := marksOf(row.headers); got != row.want {
			t.Errorf("%s: got %+v, want %+v", name, got, row.want)
		}
	}
	redriven := told{}
	for name, value := range Fresh(at) {
		if value != nil {
			redriven[name] = value
		}
	}
	if got := marksOf(redriven); got != (marks{redriven: at.Truncate(time.Second)}) {
		t.Errorf("redriven: got %+v", got)
	}
}
