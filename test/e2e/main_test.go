//go:build e2e

// Package e2e tests the whole of Fallback on a real RabbitMQ, from the repository's own conf and definitions.
//
// Tests that touch the whole broker run one after the other; those that take a virtual host of their own run in
// parallel.
package e2e

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"

	"fallback/test/harness"
)

// broker is shared by all tests of the package.
var broker *harness.Broker

// atOnce is how many parallel tests run at the same time, unless -parallel says so: on two cores there would be two,
// and they wait for brokers and deadlines more than they compute.
const atOnce = "6"

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue &&
		runtime.GOMAXPROCS(0) < 4 {
		_ = parallel.Value.Set(atOnce)
	}
	var err error
	if broker, err = harness.StartBroker(harness.BrokerOptions{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := errors.Join(closeSpare(), broker.Close()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}
