//go:build e2e

// Package e2e tests the whole of Fallback on a real RabbitMQ, from the repository's own conf and definitions.
//
// Tests that touch the whole broker run one after the other; those that take a virtual host of their own run in parallel.
package e2e

import (
	"fmt"
	"os"
	"testing"

	"fallback/test/harness"
)

// broker is shared by all tests of the package.
var broker *harness.Broker

func TestMain(m *testing.M) {
	var err error
	if broker, err = harness.StartBroker(harness.BrokerOptions{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := broker.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
