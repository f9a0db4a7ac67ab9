// Package backoff is how long to wait after what has failed: twice as long each time, and not always the same.
package backoff

import (
	"math/rand/v2"
	"time"
)

// Wait is the wait after failure n in a row, from 0: first, then twice first, and so on up to longest.
func Wait(n int, first, longest time.Duration) time.Duration {
	return min(first<<min(n, 20), longest)
}

// Jitter returns by how much to shorten a wait: less than below. It keeps many who wait from coming at once, and one
// from keeping time with what comes and goes. Nil is a random one; tests have others.
type Jitter func(below time.Duration) time.Duration

// Shorten takes less than 1/parts off a wait.
func (j Jitter) Shorten(wait time.Duration, parts int) time.Duration {
	below := wait / time.Duration(parts)
	switch {
	case below <= 0:
		return wait
	case j == nil:
		return wait - rand.N(below)
	}
	return wait - j(below)
}
