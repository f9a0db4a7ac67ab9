// Package app wires the packages together: settings in, something that runs out.
package app

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"fallback/functions/config"
	"fallback/functions/httpapi"
	"fallback/functions/management"
	"fallback/functions/rabbit"
)

// publisherChannels is how many channels a server spreads its publishes over when there are many. With one publish on
// each of many channels, it measured half the throughput of a few pipelined ones.
const publisherChannels = 4

// Server is `fallback serve`: the door, its listener and the publisher behind it.
type Server struct {
	config    config.Config
	log       *slog.Logger
	publisher *rabbit.Publisher
	server    *httpapi.Server
	listener  net.Listener
}

// ServerMetrics counts what a server does and answers GET /metrics. It is an interface, so that what the functions link
// holds no metrics; metrics.Server is one.
type ServerMetrics interface {
	http.Handler
	// Answered hears of each request's outcome, see [httpapi.Options].
	Answered(outcome string, took time.Duration)
	// Admitted hears of each key that has let a request in, see [httpapi.Options].
	Admitted(kind string, place int)
	// Refused hears of each connection that is turned away, likewise.
	Refused(reason string)
	// Watch is called once, with what tells the state of the moment.
	Watch(inHand func() (requests, bytes int64), broker func() (connected, blocked bool))
}

// NewServer listens at once, so that the address is known and taken, and answers from Run on. Without metrics (nil),
// nothing is counted, and /metrics is a path like any other. The error is of a setting, or of
// listening at FALLBACK_ADDR.
func NewServer(c config.Config, log *slog.Logger, metrics ServerMetrics) (*Server, error) {
	options := publisherOptions(c, log)
	options.Channels = publisherChannels
	if c.ManagementURL != "" {
		broker, err := management.New(c.ManagementURL.Reveal())
		if err != nil {
			return nil, err
		}
		options.QueueType = func(ctx context.Context, queue string) (string, error) {
			return broker.QueueType(ctx, c.VHost, queue)
		}
	}
	publisher := rabbit.NewPublisher(options)
	o := doorOptions(c, log)
	if metrics != nil {
		o.Metrics, o.Answered = metrics, metrics.Answered
		o.Admitted, o.Refused = metrics.Admitted, metrics.Refused
	}
	door, err := httpapi.New(o, publisher)
	if err != nil {
		return nil, err
	}
	if metrics != nil {
		metrics.Watch(door.InHand, publisher.State)
	}
	listener, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return nil, fmt.Errorf("FALLBACK_ADDR: %w", err)
	}
	return &Server{c, log, publisher, httpapi.NewServer(door), listener}, nil
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends, then stops in order: no new connections, the requests in hand, AMQP. The error is
// [httpapi.Server.Serve]'s.
func (s *Server) Run(ctx context.Context) error {
	s.log.Info("listening", "addr", s.Addr().String(), "prefix", s.config.PathPrefix, "queue", s.config.Queue)
	s.tellOpenEnds()
	connected, disconnect := context.WithCancel(context.WithoutCancel(ctx))
	var work sync.WaitGroup
	work.Go(func() { s.publisher.Run(connected) })

	err := s.server.Serve(ctx, s.listener)
	s.log.Info("stopping", "cause", context.Cause(ctx))
	disconnect()
	work.Wait()
	s.publisher.Close()
	return err
}

// tellOpenEnds logs what the settings leave open.
func (s *Server) tellOpenEnds() {
	addr, _ := s.Addr().(*net.TCPAddr)
	if len(s.config.Tokens)+len(s.config.WebhookSecrets) == 0 && addr != nil && !addr.IP.IsLoopback() {
		s.log.Warn("everyone who can reach this address may enqueue",
			"addr", s.Addr().String(), "hint",
			"set FALLBACK_TOKENS or FALLBACK_WEBHOOK_SECRETS, unless a firewall keeps strangers away")
	}
	if s.config.ManagementURL == "" {
		s.log.Info("a classic queue would go unnoticed, unless the broker's user may declare queues",
			"hint", "set RABBITMQ_MANAGEMENT_URL, so that /readyz can tell it from a quorum queue")
	}
}

func publisherOptions(c config.Config, log *slog.Logger) rabbit.Options {
	return rabbit.Options{
		URL: c.AMQPServerURL.Reveal(), Queue: c.Queue, Text: c.Message,
		Channels: 1, InFlight: c.MaxInFlight, Grace: c.Timeout, Log: log,
	}
}

func doorOptions(c config.Config, log *slog.Logger) httpapi.Options {
	return httpapi.Options{
		Prefix: c.PathPrefix, Methods: c.Methods, Queue: c.Queue,
		Limits:  httpapi.Limits{Body: c.MaxBodyBytes, Header: c.MaxHeaderBytes},
		Timeout: c.Timeout, InFlight: c.MaxInFlight, BytesInHand: c.MaxBytesInHand, Rate: c.RateLimit,
		Tokens: reveal(c.Tokens), WebhookSecrets: reveal(c.WebhookSecrets), AcceptReplays: reveal(c.AcceptReplays),
		TrustedProxies: c.Proxies, CORSOrigins: c.CORSOrigins, Log: log,
	}
}

func reveal(secrets []config.Secret) []string {
	var out []string
	for _, s := range secrets {
		out = append(out, s.Reveal())
	}
	return out
}
