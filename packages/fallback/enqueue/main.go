// Command enqueue is the DigitalOcean Function fallback/enqueue: it stores each request that it gets on the queue.
package main

import (
	"context"
	"os"

	"fallback/functions/app"
	"fallback/functions/digitalocean"

	_ "golang.org/x/crypto/x509roots/fallback" // the platform's image may have no roots
)

// door is made once and outlives an invocation: a warm function keeps its connection to the broker.
var door = app.NewDoorFunction(os.Environ(), os.Stderr)

// Main is what the platform calls. It returns no error on purpose: the platform would answer 400.
func Main(ctx context.Context, event digitalocean.Event) digitalocean.Response {
	return digitalocean.Handle(ctx, door, event)
}

func main() { digitalocean.Serve(Main) }
