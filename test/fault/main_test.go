//go:build e2e

package fault

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"fallback/test/harness"
)

// broker is shared by all tests of the package, which run one after the other: most faults are the whole broker's.
var broker *harness.Broker

var seedFlag = flag.Uint64("fault.seed", 0, "seed of what is chosen at random (also FAULT_SEED); 0 for a new one")

// seed is given, or new.
var seed uint64

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	seed = *seedFlag
	if given := os.Getenv("FAULT_SEED"); seed == 0 && given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			fmt.Fprintln(os.Stderr, "FAULT_SEED:", err)
			return 2
		}
	}
	if seed == 0 {
		seed = uint64(rand.Uint32()) + 1
	}
	fmt.Printf("seed %d\n", seed)
	var err error
	if broker, err = harness.StartBroker(harness.BrokerOptions{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer broker.Close()
	if dir, err := programs(); err == nil {
		defer os.RemoveAll(dir)
	}
	return m.Run()
}

// again is how to do it once more.
func again(t *testing.T) string {
	return fmt.Sprintf("again: go test -tags e2e -count=1 ./test/fault -run '%s$' -fault.seed=%d", t.Name(), seed)
}
