// Command lambda is Fallback as an AWS Lambda function: `make lambda` builds it as `bootstrap`. Events of HTTP go
// through the door, those of a schedule start a run of the drain; template.yaml deploys it twice, once for each, with
// the settings and the broker's user that each needs.
package main

import (
	"context"
	"log/slog"
	"os"

	"fallback/functions/app"
	"fallback/functions/awslambda"
	"fallback/functions/telemetry"

	_ "golang.org/x/crypto/x509roots/fallback" // whatever roots the platform's image has
)

// Both are made once and outlive an invocation: a warm function keeps its connections. Neither connects before it is
// called.
var (
	door  = app.NewDoorFunction(os.Environ(), os.Stderr)
	drain = app.NewDrainFunction(os.Environ(), os.Stderr)
)

func main() {
	awslambda.Serve(&awslambda.Function{
		Door:  door,
		Drain: func(ctx context.Context) any { return drain.Run(ctx) },
		Log:   telemetry.Logger(os.Stderr, "json", slog.LevelInfo),
	}, func() {
		drain.Close()
		door.Close()
	})
}
