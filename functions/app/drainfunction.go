package app

import (
	"context"
	"io"
	"log/slog"
	"time"

	"fallback/functions/config"
	"fallback/functions/drain"
	"fallback/functions/telemetry"
)

// unstated is how long a run may take where the platform sets no deadline.
const unstated = time.Minute

// DrainFunction is the drain for a platform that calls it by a schedule, for one run each time. Between runs a warm
// process keeps its connections.
type DrainFunction struct {
	drain  *Drain // nil where the settings cannot be read
	faults error  // of the settings
	config config.Config
	log    *slog.Logger
}

// NewDrainFunction connects to nothing yet. As with [NewDoorFunction], settings that cannot be read do not end the
// process: each report says what is wrong, and so does the log.
func NewDrainFunction(environ config.Environ, logs io.Writer) *DrainFunction {
	f := new(DrainFunction)
	f.config, f.faults = environ.Load("AMQP_SERVER_URL", "FALLBACK_TARGET_URL")
	f.log = telemetry.Logger(logs, "json", f.config.LogLevel)
	f.config.TellStrays(f.log)
	if f.faults == nil {
		f.drain, f.faults = NewDrain(f.config, f.log, nil)
	}
	return f
}

// Run drains once, and is over before ctx's deadline, at which the platform ends the process: what is still in flight
// then is given back. Should the platform call for a second one while the first goes on, that one does nothing.
func (f *DrainFunction) Run(ctx context.Context) drain.Report {
	if f.faults != nil {
		f.log.Error("cannot drain", "error", f.faults)
		return drain.Report{Waiting: -1, End: "settings are missing or wrong", LastError: f.faults.Error()}
	}
	left := unstated
	if deadline, ok := ctx.Deadline(); ok {
		left = time.Until(deadline)
	}
	left -= drain.Grace
	if left < f.config.TargetTimeout {
		f.log.Warn("the time limit is short: a request that hangs is cut off each time, and never counted as an "+
			"attempt",
			"hint", "limits.timeout in project.yml, or Timeout in template.yaml, should be at least "+
				"FALLBACK_TARGET_TIMEOUT and "+
				drain.Grace.String()+" more")
	}
	if left <= 0 {
		return drain.Report{Waiting: -1, End: "no time is left for a run"}
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	report := f.drain.Once(ctx, drain.Budget{Time: min(sending(left, f.config.TargetTimeout), f.config.Window)})
	f.log.Info("drained", "report", report)
	return report
}

// Close is for a process that is to end: it ends the connections, as [Drain.Close] does.
func (f *DrainFunction) Close() {
	if f.drain != nil {
		f.drain.Close()
	}
}

// sending is for how long new requests are sent, of the time that is left: the last one may take as long as any, if
// that leaves half of the time or more.
func sending(left, longest time.Duration) time.Duration { return max(left-longest, left/2) }
