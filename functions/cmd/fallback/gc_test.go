package main

import (
	"runtime"
	"testing"
	"time"
)

func TestGCPercent(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		live uint64
		want int
	}{{0, 350}, {1 << 20, 350}, {4 << 20, 350}, {7 << 20, 200}, {14 << 20, 100}, {20 << 20, 70}, {28 << 20, 50},
		{1 << 30, 50}} {
		if got := gcPercent(row.live); got != row.want {
			t.Errorf("%d bytes live: got %d, want %d", row.live, got, row.want)
		}
	}
}

// TestAfterEachGC holds that it is called again and again.
func TestAfterEachGC(t *testing.T) {
	t.Parallel()
	called := make(chan struct{}, 100)
	afterEachGC(func() {
		select {
		case called <- struct{}{}:
		default:
		}
	})
	for i := range 3 {
		runtime.GC()
		select {
		case <-called:
		case <-time.After(10 * time.Second):
			t.Fatalf("not called after collection %d", i+1)
		}
	}
	if liveHeap() == 0 {
		t.Error("the live heap is not known")
	}
}
