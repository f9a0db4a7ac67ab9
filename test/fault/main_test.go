//go:build e2e

package fault

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"

	"fallback/test/harness"
)

// broker is shared by all tests of the package; struck by those of faults that are a whole broker's. In the long run,
// in which nothing goes on beside a fault, the two are one.
var broker, struck *harness.Broker

var seedFlag = flag.Uint64("fault.seed", 0, "seed of what is chosen at random (also FAULT_SEED); 0 for a new one")

// seed is given, or new.
var seed uint64

// results are those of this run. With FAULT_RESULTS they are written to that folder.
var results *report

// atOnce is how many parallel tests run at the same time, unless -parallel says so: how many it makes sense to is for
// their lanes to say.
const atOnce = "64"

func TestMain(m *testing.M) {
	if name := os.Getenv(wrongDrain); name != "" {
		os.Exit(drainAs(name))
	}
	flag.Parse()
	os.Exit(runTests(m))
}

// drainAs has this process be a drain that is wrong, until SIGTERM.
func drainAs(name string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := wrongDrains[name].drain(ctx, os.Getenv("AMQP_SERVER_URL"), os.Getenv("FALLBACK_TARGET_URL")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
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
	if given := os.Getenv("FAULT_ACKNOWLEDGED"); given != "" {
		if wanted, err = strconv.Atoi(given); err != nil {
			fmt.Fprintln(os.Stderr, "FAULT_ACKNOWLEDGED:", err)
			return 2
		}
	}
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		_ = parallel.Value.Set(atOnce)
	}
	shared := harness.BrokerOptions{}
	if wanted == 0 { // several rounds put their load on it at once, and the stores of the controls wait for no confirm
		shared.Memory = 2 << 30
	}
	if broker, err = harness.StartBroker(shared); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer broker.Close()
	if struck = broker; wanted == 0 {
		if struck, err = harness.StartBroker(harness.BrokerOptions{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer struck.Close()
	}
	results = newReport(broker, seed, wanted, os.Getenv("FAULT_RESULTS"))
	return m.Run()
}

// again is how to do it once more.
func again(t *testing.T) string {
	return fmt.Sprintf("again: go test -tags e2e -count=1 ./test/fault -run '%s$' -fault.seed=%d", t.Name(), seed)
}
