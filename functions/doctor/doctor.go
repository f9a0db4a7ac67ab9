// Package doctor looks at what a 202 and the drain rest on: settings, the broker, its user, queues and policies, the
// primary. It says of each what it found, and what to do where that is not as it should be. It changes nothing, takes no
// message and leaves none.
package doctor

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"fallback/functions/config"
	"fallback/functions/rabbit"
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

// Finding is what one look came to.
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

const (
	// everything bounds Examine.
	everything = 20 * time.Second
	// one bounds a check. A broker takes three seconds to refuse a password.
	one = 6 * time.Second
)

// check is a row of the table. It tells what it finds, at least once.
type check struct {
	name string
	run  func(*visit, context.Context)
}

// checks stand in the order in which each needs what those before it found.
var checks = []check{
	{"settings", (*visit).settings},
	{"senders", (*visit).senders},
	{"keys", (*visit).keys},
	{"broker", (*visit).reach},
	{"tls", (*visit).encryption},
	{"login", (*visit).login},
	{"version", (*visit).version},
	{"user", (*visit).user},
	{"management", (*visit).manage},
	{"alarms", (*visit).alarms},
	{"queue", (*visit).queues},
	{"passwords", (*visit).passwords},
	{"target", (*visit).target},
}

// visit is what the checks so far have found, for those to come.
type visit struct {
	environ config.Environ
	check   string // the present one
	tell    func(Finding)

	unread     bool // the settings
	config     config.Config
	broker     *url.URL // nil when AMQP_SERVER_URL is not set, or is cut short
	place      place    // of the broker
	connection *rabbit.Examination
	entry      *rabbit.EntryError
	reached    bool  // it takes connections
	blocked    error // as the publishing connection was told
	published  bool  // it could be asked to publish
	management *rabbit.Management
}

// Examine runs all checks, tells each finding as it is known, and says whether one of them failed. It takes 20 seconds at
// most.
func Examine(ctx context.Context, environ config.Environ, tell func(Finding)) (failed int) {
	ctx, cancel := context.WithTimeout(ctx, everything)
	defer cancel()
	v := &visit{environ: environ, tell: func(f Finding) {
		if f.State == Fail {
			failed++
		}
		tell(f)
	}}
	defer func() {
		if v.connection != nil {
			v.connection.Close()
		}
	}()
	for _, c := range checks {
		v.check = c.name
		if ctx.Err() != nil {
			v.skip("interrupted, or the %s for all checks are over", everything)
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, one)
		c.run(v, bounded)
		cancel()
		if v.unread {
			v.check = "all else"
			v.skip("the settings cannot be read")
			break
		}
	}
	return failed
}

func (v *visit) ok(format string, args ...any) {
	v.tell(Finding{v.check, OK, fmt.Sprintf(format, args...), ""})
}

func (v *visit) skip(format string, args ...any) {
	v.tell(Finding{v.check, Skip, fmt.Sprintf(format, args...), ""})
}

func (v *visit) warn(advice, format string, args ...any) {
	v.tell(Finding{v.check, Warn, fmt.Sprintf(format, args...), advice})
}

func (v *visit) fail(advice, format string, args ...any) {
	v.tell(Finding{v.check, Fail, fmt.Sprintf(format, args...), advice})
}
