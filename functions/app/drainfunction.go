package app

import (
	"context"
	"io"
	"time"

	"fallback/functions/config"
	"fallback/functions/drain"
	"fallback/functions/telemetry"
)

// unstated is the deadline of a run whose platform has set none.
const unstated = time.Minute

// DrainFunction is one run of the drain, for a platform that calls it by a schedule and ends it at ctx's deadline. The run
// is over before that, in every case: what is still in flight then is given back. Between runs a warm process keeps its
// connections. Should the platform ever call for a second one while the first goes on, that one does nothing.
//
// As with [Function], settings that cannot be read do not end the process: each report says what is wrong, and so does
// the log.
//
// close, for a process that is to end, ends the connections as [Drain.Close] does.
func DrainFunction(environ config.Environ, logs io.Writer) (run func(context.Context) drain.Report, close func()) {
	c, err := environ.Load("AMQP_SERVER_URL", "FALLBACK_TARGET_URL")
	log := telemetry.Logger(logs, "json", c.LogLevel)
	c.TellStrays(log)
	var d *Drain
	if err == nil {
		d, err = NewDrain(c, log, nil)
	}
	close = func() {
		if d != nil {
			d.Close()
		}
	}
	run = func(ctx context.Context) drain.Report {
		if err != nil {
			log.Error("cannot drain", "error", err)
			return drain.Report{Waiting: -1, End: "settings are missing or wrong", Trouble: err.Error()}
		}
		left := unstated
		if deadline, ok := ctx.Deadline(); ok {
			left = time.Until(deadline)
		}
		left -= drain.Grace
		if left < c.TargetTimeout {
			log.Warn("the time limit is short: a request that hangs is cut off each time, and never counted as an attempt",
				"hint", "limits.timeout in project.yml, or Timeout in template.yaml, should be at least FALLBACK_TARGET_TIMEOUT and "+drain.Grace.String()+" more")
		}
		if left <= 0 {
			return drain.Report{Waiting: -1, End: "no time is left for a run"}
		}
		ctx, cancel := context.WithTimeout(ctx, left)
		defer cancel()
		report := d.Once(ctx, drain.Budget{Time: min(sending(left, c.TargetTimeout), c.Window)})
		log.Info("drained", "report", report)
		return report
	}
	return run, close
}

// sending is for how long new requests are sent, of the time that is left: the last one may take as long as any, if that
// leaves half of the time or more.
func sending(left, longest time.Duration) time.Duration { return max(left-longest, left/2) }
