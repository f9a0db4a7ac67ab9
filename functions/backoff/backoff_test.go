package backoff

import (
	"testing"
	"time"
)

func TestWait(t *testing.T) {
	t.Parallel()
	for n, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
		if got := Wait(n, time.Second, 10*time.Second); got != want*time.Second {
			t.Errorf("after failure %d: got %s, want %s", n, got, want*time.Second)
		}
	}
	if got := Wait(1<<30, 10*time.Minute, 24*time.Hour); got != 24*time.Hour {
		t.Errorf("after very many: got %s", got)
	}
}

func TestShorten(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name        string
		jitter      Jitter
		least, most time.Duration
	}{
		{"random", nil, 751, 1000},
		{"none", func(time.Duration) time.Duration { return 0 }, 1000, 1000},
		{"most", func(below time.Duration) time.Duration { return below - 1 }, 751, 751},
	} {
		if got := row.jitter.Shorten(1000, 4); got < row.least || got > row.most {
			t.Errorf("%s: got %d, want %d to %d", row.name, got, row.least, row.most)
		}
	}
	if got := Jitter(nil).Shorten(3, 4); got != 3 {
		t.Errorf("too short to be shortened: got %d", got)
	}
}
