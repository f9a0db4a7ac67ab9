// Command drain is the DigitalOcean Function fallback/drain: each time that its trigger, or its owner, calls it, it
// replays what waits on the queue to the primary.
package main

import (
	"context"
	"net/http"
	"os"

	"fallback/functions/app"
	"fallback/functions/digitalocean"

	_ "golang.org/x/crypto/x509roots/fallback" // the platform's image may have no roots
)

// function is made once and outlives an invocation: a warm one keeps its connections to the broker and to the primary.
var function = app.NewDrainFunction(os.Environ(), os.Stderr)

// Main is what the platform calls. The run's report is its result. A request of the web is not let in: with `web:
// false` none comes, and should that be lost, strangers start nothing.
func Main(ctx context.Context, event digitalocean.Event) any {
	if event.HTTP != nil || event.Fault != nil {
		return digitalocean.Problem(http.StatusNotFound, "not-found", "Nothing is here.")
	}
	return function.Run(ctx)
}

func main() { digitalocean.Serve(Main) }
