package config

import (
	"errors"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// checkCron says what is wrong with a cron expression. The parser is the scheduler's, so that what is refused is what
// a worker with a target would refuse.
func checkCron(expression string) error {
	if strings.Contains(expression, "TZ=") && !strings.Contains(expression, " ") { // the parser panics
		return errors.New("there is a time zone, and no time")
	}
	times, err := cron.ParseStandard(expression)
	if err != nil {
		return err
	}
	if times.Next(time.Now().UTC()).IsZero() {
		return errors.New("that time never comes")
	}
	return nil
}
