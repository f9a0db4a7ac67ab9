// Package doctor looks at what a 202 and the drain rest on: settings, the broker, its user, queues and policies, the
// primary. It says of each what it found, and what to do where that is not as it should be. It changes nothing and
// leaves no message; only [ExamineMessages] takes some, and requeues them.
//
// A check asks, which fills in its part of the survey, and then concludes: its findings follow from the survey alone.
package doctor

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"fallback/functions/config"
)

// State is how a thing was found.
type State string

const (
	// OK: as it should be.
	OK State = "ok"
	// Warn: it works, and somebody should know.
	Warn State = "warn"
	// Fail: requests are refused or lost, or could be.
	Fail State = "fail"
	// Skip: it was not looked at; what was found says why.
	Skip State = "skip"
)

// Finding is one thing that a check has concluded.
type Finding struct {
	Check  string `json:"check"`
	State  State  `json:"state"`
	Found  string `json:"found"`
	Advice string `json:"advice,omitempty"` // what to do; only when it is not ok
}

// Print writes a finding as one line.
func (f Finding) Print(out io.Writer) error {
	state := string(f.State)
	if f.State == Fail {
		state = strings.ToUpper(state)
	}
	line := fmt.Sprintf("%-4s  %-10s  %s", state, f.Check, f.Found)
	if f.Advice != "" {
		line += " -> " + f.Advice
	}
	_, err := fmt.Fprintln(out, strings.NewReplacer("\r", " ", "\n", " ").Replace(line))
	return err
}

func good(format string, args ...any) Finding {
	return Finding{"", OK, fmt.Sprintf(format, args...), ""}
}
func skip(format string, args ...any) Finding {
	return Finding{"", Skip, fmt.Sprintf(format, args...), ""}
}

func warn(advice, format string, args ...any) Finding {
	return Finding{"", Warn, fmt.Sprintf(format, args...), advice}
}

func fail(advice, format string, args ...any) Finding {
	return Finding{"", Fail, fmt.Sprintf(format, args...), advice}
}

const (
	// examineTime bounds Examine.
	examineTime = 20 * time.Second
	// checkTime bounds a check. A broker takes three seconds to refuse a password.
	checkTime = 6 * time.Second
)

// check is a row of the table. It comes to any number of findings; to none when nobody asked for it.
type check struct {
	name     string
	ask      func(*survey, context.Context) // nil where what was asked before is enough
	conclude func(*survey) []Finding
}

// checks stand in the order in which each needs what those before it have asked.
var checks = []check{
	{"settings", nil, (*survey).concludeSettings},
	{"senders", nil, (*survey).concludeSenders},
	{"keys", (*survey).askKeys, (*survey).concludeKeys},
	{"broker", (*survey).askBroker, (*survey).concludeBroker},
	{"tls", (*survey).askConnection, (*survey).concludeEncryption},
	{"login", nil, (*survey).concludeLogin},
	{"version", nil, (*survey).concludeVersion},
	{"user", (*survey).askUser, (*survey).concludeUser},
	{"management", (*survey).askManagement, (*survey).concludeManagement},
	{"alarms", (*survey).askNodes, (*survey).concludeAlarms},
	{"queue", (*survey).askQueues, (*survey).concludeQueues},
	{"first", (*survey).askFirst, (*survey).concludeFirst},
	{"passwords", nil, (*survey).concludePasswords},
	{"target", (*survey).askTarget, (*survey).concludeTarget},
}

// Examine runs all checks, tells each finding as it is known, and says how many of them are failures. It takes 20
// seconds at most.
func Examine(ctx context.Context, environ config.Environ, tell func(Finding)) (failed int) {
	return new(survey).examine(ctx, environ, tell)
}

// ExamineMessages is Examine, and takes the first messages of the queues for a moment too, which the broker counts.
func ExamineMessages(ctx context.Context, environ config.Environ, tell func(Finding)) (failed int) {
	return (&survey{takes: true}).examine(ctx, environ, tell)
}

func (s *survey) examine(ctx context.Context, environ config.Environ, tell func(Finding)) (failed int) {
	ctx, cancel := context.WithTimeout(ctx, examineTime)
	defer cancel()
	defer s.close()
	s.config, s.unread = environ.Load()
	for _, c := range checks {
		for _, f := range c.run(ctx, s) {
			if f.State == Fail {
				failed++
			}
			f.Check = c.name
			tell(f)
		}
		if s.unread != nil {
			tell(Finding{"all else", Skip, "the settings cannot be read", ""})
			break
		}
	}
	return failed
}

func (c check) run(ctx context.Context, s *survey) []Finding {
	if ctx.Err() != nil {
		return []Finding{skip("interrupted, or the %s for all checks are over", examineTime)}
	}
	if c.ask != nil {
		ctx, cancel := context.WithTimeout(ctx, checkTime)
		defer cancel()
		c.ask(s, ctx)
	}
	return c.conclude(s)
}
