package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// gcHeadroom is how much garbage may pile up, in bytes, before it is collected. A server that holds nothing has a live
// heap of 4 MB, and by the runtime's default it would collect after as much again, 20 times a second under load: that
// took a fourth of its throughput. A larger live heap has the same room, or half its size if that is more.
const gcHeadroom = 14 << 20

// calmGC keeps the collector's percentage at what gcHeadroom comes to, anew after each collection, unless GOGC is set.
// GOMEMLIMIT holds as ever. A fixed percentage was measured beside it: with bodies of 16 KiB it took 97 MB where this
// takes 60, and with a limit that kept it to 54 MB, bodies of 256 KiB took two and a half times the processor's time.
func calmGC() {
	if os.Getenv("GOGC") == "" {
		afterEachGC(func() { debug.SetGCPercent(gcPercent(liveHeap())) })
	}
}

// gcPercent is at least 50, and no more than what suits 4 MB, since it is taken of stacks and globals, too, which are
// most of what a drain has.
func gcPercent(live uint64) int { return int(max(50, 100*gcHeadroom/max(live, 4<<20))) }

// liveHeap is what the last collection found in use.
func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// afterEachGC calls f after each collection, for as long as the process lasts: an object that nobody holds is found by
// each, and its finalizer leaves another one.
func afterEachGC(f func()) {
	beacon := new([16]byte)
	runtime.SetFinalizer(beacon, func(*[16]byte) {
		f()
		afterEachGC(f)
	})
}
