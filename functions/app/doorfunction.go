package app

import (
	"io"
	"net/http"

	"fallback/functions/config"
	"fallback/functions/httpapi"
	"fallback/functions/rabbit"
	"fallback/functions/telemetry"
)

// DoorFunction is the door for a platform that calls it once a request.
type DoorFunction struct {
	http.Handler
	close func()
}

// NewDoorFunction dials nothing: the first request does. Every path is captured, since the function's own route is the
// prefix. Settings that cannot be read do not end the process, which the platform would answer for with a 400: every
// request gets a 503, and the log says why.
func NewDoorFunction(environ config.Environ, logs io.Writer) *DoorFunction {
	c, err := environ.Load("AMQP_SERVER_URL")
	log := telemetry.Logger(logs, "json", c.LogLevel)
	c.TellStrays(log)
	if err == nil {
		c.PathPrefix = "/"
		publisher := rabbit.NewPublisher(publisherOptions(c, log))
		options := doorOptions(c, log)
		options.Platform = true
		var door *httpapi.Door
		if door, err = httpapi.New(options, publisher); err == nil {
			return &DoorFunction{door, publisher.Close}
		}
	}
	log.Error("cannot serve", "error", err)
	return &DoorFunction{httpapi.Unconfigured, func() {}}
}

// Close is for a process that is to end: it ends the connection to the broker. Requests under way are answered with a
// 503.
func (f *DoorFunction) Close() { f.close() }
