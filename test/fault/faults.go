package fault

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// span is a range that the seed chooses from.
type span[T int | time.Duration] struct{ from, to T }

// evidence tells from a round's figures that its fault has struck. One that does not proves nothing.
type evidence func(figures) bool

// answers is one of these, between the strike and the first 202 after the end.
func answers(names ...string) evidence {
	return func(c figures) bool {
		return slices.ContainsFunc(names, func(name string) bool { return c.struck.answers[name] > 0 })
	}
}

func reconnects(c figures) bool { return c.reconnected > 0 }       // new connections to the broker
func duplicates(c figures) bool { return c.duplicated > 0 }        // messages that were stored twice
func leavers(c figures) bool    { return c.left > 0 }              // clients that left
func cutOffs(c figures) bool    { return c.struck.unanswered > 0 } // requests without an answer
func disturbs(c figures) bool   { return c.disturbed > 0 }         // writes to and from the broker

// fault is one way in which things break.
type fault struct {
	name  string
	about string // for the table of results
	// strike returns when the fault is there, heal when it is over.
	strike, heal func(context.Context, *rig) error

	hold    span[time.Duration] // how long it lasts, when the server's timeout is a second; it grows with that
	fixed   bool                // hold does not grow
	senders span[int]           // 16 to 64 if not set, half as many before a drain
	servers int
	query   string // of the AMQP URL

	shows  evidence
	early  bool // that shows while it lasts, and it lasts until then, so that on a slow machine it is not over before
	wide   bool // it is the whole broker's: nothing else goes on there beside it
	serves bool // 202s go on while it lasts
	shut   bool // no 202 may be given while it lasts
	// nothing tells the server: it can only miss a confirm, and has the deadline to do so on top of the limit
	untold   bool
	ends     int  // how often a server ends: requests that it has not read yet may be cut off with their connection
	killed   bool // it is given no time to answer those that it has in hand
	function bool // what serves is the function behind its gateway

	absent bool                         // the tests' broker has no such fault
	flows  bool                         // replays go on while it lasts, at a tenth of the rate of the 202s or more
	keys   int                          // how many senders the primary can tell apart; 0 for none
	breaks func(*rig, figures) []string // what else it may not break, and has; nil for nothing
	// of a drain, which replays to a primary; 0 for none: then the queue is the end of the way
	workers int
	drain   map[string]string // their further settings
}

// limit is how soon after the end of the fault there must be a 202.
func (f fault) limit(p pace) time.Duration {
	if f.untold {
		return allowed(p.timeout + recoveryLimit)
	}
	return allowed(recoveryLimit)
}

// faults is the list. The function, which serves one request at a time, is early in it: in the long run, later faults
// make up for what is not accepted there.
var faults = []fault{
	{
		name: "broker SIGKILL and restart", about: "the broker's process is killed and started again",
		strike: docker("kill"), heal: startBroker, hold: span[time.Duration]{0, time.Second},
		shows: answers("503 broker-unavailable"), wide: true,
	},
	{
		name:   "broker stopped and continued",
		about:  "all processes of the broker frozen for longer than two heartbeats",
		strike: pauseBroker, heal: docker("unpause"), query: "?heartbeat=2",
		// The server notices before a deadline of 5 s and may give each request its 202 on the thaw: it has
		// reconnected then.
		hold: span[time.Duration]{4500 * time.Millisecond, 6 * time.Second}, fixed: true, shows: reconnects,
		early: true, wide: true,
	},
	{
		name: "function frozen and thawed", about: "a warm function's process frozen until the broker has missed " +
			"two heartbeats",
		strike: func(_ context.Context, r *rig) error {
			r.load.pause() // the platform freezes what is idle
			return r.function.Pause()
		},
		heal: func(ctx context.Context, r *rig) error {
			defer r.load.resume() // the next request thaws it
			return poll(ctx, "the broker to give up the connection", func() (bool, error) {
				names, err := r.connections()
				return len(names) == 0, err
			})
		},
		hold: span[time.Duration]{6500 * time.Millisecond, 8 * time.Second}, fixed: true, senders: span[int]{1, 2},
		query: "?heartbeat=2", shows: reconnects, function: true,
	},
	{
		name: "memory alarm", about: "the broker blocks publishers for want of memory",
		strike: erlang(`vm_memory_monitor:set_vm_memory_high_watermark({absolute, 1})`),
		heal:   alarmEnds(`vm_memory_monitor:set_vm_memory_high_watermark({absolute, "512MB"})`),
		// Those in hand when it comes wait for it to end: it is told to what is sent after their deadline.
		hold:  span[time.Duration]{1200 * time.Millisecond, 1800 * time.Millisecond},
		shows: answers("503 broker-blocked"), early: true, wide: true,
	},
	{
		name: "disk alarm", about: "the broker blocks publishers for want of disk",
		strike: erlang(`rabbit_disk_monitor:set_disk_free_limit("100000GB")`),
		heal:   alarmEnds(`rabbit_disk_monitor:set_disk_free_limit("1GB")`),
		// Those in hand when it comes wait for it to end: it is told to what is sent after their deadline.
		hold:  span[time.Duration]{1200 * time.Millisecond, 1800 * time.Millisecond},
		shows: answers("503 broker-blocked"), early: true, wide: true,
	},
	{
		name: "connections closed by the operator", about: "again and again, through the management API",
		strike: func(_ context.Context, r *rig) error {
			r.background(every(200*time.Millisecond, func() { _ = r.closeConnections(topology.Publisher) }))
			return nil
		},
		heal: healBackground, hold: span[time.Duration]{500 * time.Millisecond, 1500 * time.Millisecond},
		shows: reconnects, early: true, wide: true,
	},
	{
		name: "channel errors", about: "the broker refuses messages over 1,000 bytes (406), which closes their channel",
		// The limit is kept where the broker can read it quickly; the setting is where channels of older versions look.
		strike: toChannels(`application:set_env(rabbit, fault_size, application:get_env(rabbit, max_message_size, 134217728)),
			persistent_term:put(max_message_size, 1000), application:set_env(rabbit, max_message_size, 1000)`),
		heal: toChannels(`{ok, Size} = application:get_env(rabbit, fault_size),
			persistent_term:put(max_message_size, Size), application:set_env(rabbit, max_message_size, Size)`),
		hold: span[time.Duration]{500 * time.Millisecond, 1500 * time.Millisecond}, shows: answers("503 not-confirmed"),
		early: true, wide: true,
	},
	{
		name: "queue deleted and put back", about: "senders pause while it is read empty and deleted",
		strike: deleteQueue, heal: putQueue,
		hold: span[time.Duration]{500 * time.Millisecond, 1500 * time.Millisecond}, shows: answers("503 queue-missing"),
		early: true, shut: true,
	},
	{
		name:  "permission revoked and given back",
		about: "the publisher's user may not write any more; its connections are closed",
		strike: func(_ context.Context, r *rig) error {
			// A channel remembers for a while what it may, so the connections go too.
			if err := r.permit("^$"); err != nil {
				return err
			}
			return r.closeConnections(topology.Publisher)
		},
		heal: func(_ context.Context, r *rig) error { return r.permit(publisherMay()) },
		hold: span[time.Duration]{500 * time.Millisecond, 1500 * time.Millisecond}, shows: answers("503 not-allowed"),
		early: true, wide: true,
	},
	{
		name: "password changed", about: "and connections closed by the operator; the server is restarted with the " +
			"new one",
		strike: func(_ context.Context, r *rig) error {
			r.password += "x"
			if err := r.setPassword(r.password); err != nil {
				return err
			}
			return r.closeConnections(topology.Publisher)
		},
		heal:  restartWithPassword,
		hold:  span[time.Duration]{500 * time.Millisecond, 1500 * time.Millisecond},
		shows: answers("503 broker-unavailable"), early: true, wide: true, ends: 1,
	},
	{
		name: "queue full", about: "the broker refuses what is over the queue's limit (nack)",
		strike: func(_ context.Context, r *rig) error { return r.limitQueue(topology.DefaultQueue, 10) },
		heal:   func(_ context.Context, r *rig) error { return r.limitQueue(topology.DefaultQueue, 1_000_000) },
		hold:   span[time.Duration]{500 * time.Millisecond, 1500 * time.Millisecond}, shows: answers("503 queue-full"),
		early: true,
	},
	{
		name: "network black hole", about: "the network takes everything and brings nothing, for longer than the " +
			"deadline",
		strike: network(blackHole), heal: network(passing),
		hold:  span[time.Duration]{1200 * time.Millisecond, 1800 * time.Millisecond},
		shows: answers("503 not-confirmed"), early: true,
	},
	{
		name: "network reset", about: "connections to the broker are reset, again and again",
		strike: func(_ context.Context, r *rig) error {
			r.background(every(300*time.Millisecond, r.proxy.reset))
			return nil
		},
		heal: healBackground, hold: span[time.Duration]{500 * time.Millisecond, 1500 * time.Millisecond},
		shows: reconnects, early: true,
	},
	{
		name: "network latency", about: "a round trip to the broker takes 300 ms longer",
		strike: network(slow), heal: network(passing),
		hold: span[time.Duration]{600 * time.Millisecond, 1500 * time.Millisecond}, shows: disturbs, early: true,
		serves: true,
	},
	{
		name: "one-byte slices", about: "each byte to and from the broker comes by itself",
		strike: network(sliced), heal: network(passing), senders: span[int]{8, 16},
		hold: span[time.Duration]{500 * time.Millisecond, 1500 * time.Millisecond}, shows: disturbs, early: true,
		serves: true,
	},
	{
		name: "half-open connection", about: "the broker's side is gone and the server's side is never told; a new " +
			"connection works at once",
		strike: func(_ context.Context, r *rig) error { r.proxy.forget(); r.over(); return nil },
		heal:   func(context.Context, *rig) error { return nil }, // it has to find out
		hold:   span[time.Duration]{1100 * time.Millisecond, 1500 * time.Millisecond},
		shows:  answers("503 not-confirmed"), early: true, untold: true,
	},
	{
		name: "confirms lost", about: "the broker stores and confirms, the confirm is lost, and then the connection",
		strike: func(_ context.Context, r *rig) error { r.proxy.swallow(); return nil },
		heal:   func(_ context.Context, r *rig) error { r.proxy.reset(); return nil },
		hold:   span[time.Duration]{100 * time.Millisecond, 700 * time.Millisecond}, shows: duplicates,
	},
	{
		name: "server SIGKILL under 500 in flight", about: "the server's process is killed and started again",
		strike: func(_ context.Context, r *rig) error { r.servers[0].kill(); return nil },
		heal:   func(_ context.Context, r *rig) error { return r.servers[0].start() },
		hold:   span[time.Duration]{0, 500 * time.Millisecond}, senders: span[int]{500, 500}, shows: cutOffs, ends: 1,
		killed: true,
	},
	{
		name: "server SIGTERM under 500 in flight", about: "the server ends in order and is started again",
		strike: func(_ context.Context, r *rig) error { return r.servers[0].terminate() },
		heal:   func(_ context.Context, r *rig) error { return r.servers[0].start() },
		hold:   span[time.Duration]{0, 500 * time.Millisecond}, senders: span[int]{500, 500}, shows: reconnects,
		ends: 1,
	},
	{
		name: "rolling restart of two servers", about: "one after the other ends on SIGTERM and is started again",
		strike: rollingRestart, heal: func(context.Context, *rig) error { return nil },
		servers: 2, shows: reconnects, serves: true, ends: 2,
	},
	{
		name: "client gone mid-body", about: "clients leave in the headers, in the body, and before the answer",
		strike: func(_ context.Context, r *rig) error { r.background(r.leave); return nil },
		heal:   healBackground,
		hold:   span[time.Duration]{500 * time.Millisecond, time.Second}, shows: leavers, early: true, serves: true,
	},
	{
		name: "slow body", about: "clients send a byte at a time, some slower than the deadline allows",
		strike: func(_ context.Context, r *rig) error { r.background(r.dribble); return nil },
		heal:   healBackground,
		hold:   span[time.Duration]{1200 * time.Millisecond, 1500 * time.Millisecond},
		shows:  answers("408 body-too-slow"), early: true, serves: true,
	},
}

func every(d time.Duration, do func()) func(context.Context) {
	return func(ctx context.Context) {
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			do()
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

func healBackground(_ context.Context, r *rig) error {
	r.stopBackground()
	return nil
}

func network(m mode) func(context.Context, *rig) error {
	return func(_ context.Context, r *rig) error {
		r.proxy.set(m)
		return nil
	}
}

func pauseBroker(_ context.Context, r *rig) error { return r.vhost.Pause() }

func docker(command string) func(context.Context, *rig) error {
	return func(_ context.Context, r *rig) error {
		_, err := harness.Run(harness.Patience, "docker", command, r.vhost.ID())
		return err
	}
}

// erlang has the broker's node evaluate expressions.
func erlang(expressions string) func(context.Context, *rig) error {
	return func(_ context.Context, r *rig) error { return r.vhost.Eval(expressions) }
}

// toChannels sets what channels go by. Those of RabbitMQ 3.10 look when they are opened and not again.
func toChannels(expressions string) func(context.Context, *rig) error {
	set := erlang(expressions)
	return func(ctx context.Context, r *rig) error {
		if err := set(ctx, r); err != nil || harness.Version() != "3.10" {
			return err
		}
		return r.closeConnections(topology.Publisher)
	}
}

// alarmEnds clears an alarm. The command may go on for a while after that, so the broker is asked when.
func alarmEnds(expressions string) func(context.Context, *rig) error {
	return func(ctx context.Context, r *rig) error {
		asked, stop := context.WithCancel(ctx)
		defer stop()
		done := make(chan error, 1)
		go func() {
			done <- poll(asked, "the end of the alarm", func() (bool, error) {
				if r.vhost.Call(http.MethodGet, "/api/health/checks/alarms", nil, nil) != nil {
					return false, nil
				}
				r.over()
				return true, nil
			})
		}()
		err := erlang(expressions)(ctx, r)
		if err != nil {
			stop()
		}
		return errors.Join(err, <-done)
	}
}

// startBroker returns when the broker takes connections, its queue is there, and no alarm that it starts with keeps it
// from reading what is published: until then the fault is not over.
func startBroker(ctx context.Context, r *rig) error {
	if err := docker("start")(ctx, r); err != nil {
		return err
	}
	ch, done, err := r.channel(ctx)
	if err != nil {
		return err
	}
	defer done()
	confirm, err := ch.PublishWithDeferredConfirm("", "nobody", false, false, amqp.Publishing{})
	if err != nil {
		return err
	}
	_, err = confirm.WaitContext(ctx)
	return err
}

// closeConnections closes those of a user, in every virtual host: the API knows a single one by its name only once the
// broker has counted for it, seconds later.
func (r *rig) closeConnections(user string) error {
	return r.vhost.Call(http.MethodDelete, "/api/connections/username/"+user, nil, nil)
}

func (r *rig) queuePath() string {
	return "/api/queues/" + url.PathEscape(r.vhost.Name) + "/" + topology.DefaultQueue
}

func deleteQueue(ctx context.Context, r *rig) error {
	r.load.pause()
	defer r.load.resume()
	if err := r.readEmpty(ctx); err != nil {
		return err
	}
	return r.vhost.Call(http.MethodDelete, r.queuePath(), nil, nil)
}

func putQueue(_ context.Context, r *rig) error {
	return r.vhost.Call(http.MethodPut, r.queuePath(), map[string]any{
		"durable": true, "auto_delete": false, "arguments": map[string]any{"x-queue-type": "quorum"},
	}, nil)
}

// publisherMay is what the publisher's user may write.
func publisherMay() string {
	t, _ := topology.Of(topology.DefaultQueue)
	for _, u := range t.Users() {
		if u.Name == topology.Publisher {
			return u.Write
		}
	}
	return ""
}

func (r *rig) permit(write string) error {
	return r.vhost.Call(http.MethodPut, "/api/permissions/"+url.PathEscape(r.vhost.Name)+"/"+topology.Publisher,
		map[string]string{"configure": "^$", "write": write, "read": "^$"}, nil)
}

func (r *rig) setPassword(password string) error {
	return r.vhost.Call(http.MethodPut, "/api/users/"+topology.Publisher,
		map[string]string{"password": password, "tags": ""}, nil)
}

// restartWithPassword is over when the server with the new password has been started.
func restartWithPassword(_ context.Context, r *rig) error {
	s := r.servers[0]
	if err := s.terminate(); err != nil {
		return err
	}
	s.env["AMQP_SERVER_URL"] = r.url("")
	return s.start()
}

// limitQueue changes how many messages a queue may have.
func (r *rig) limitQueue(queue string, messages int) error {
	return r.setPolicy(queue, "max-length", messages)
}

// setPolicy changes one key of a queue's policy.
func (r *rig) setPolicy(queue, key string, value any) error {
	path := "/api/policies/" + url.PathEscape(r.vhost.Name) + "/" + queue
	var policy map[string]any
	if err := r.vhost.Call(http.MethodGet, path, nil, &policy); err != nil {
		return err
	}
	policy["definition"].(map[string]any)[key] = value
	return r.vhost.Call(http.MethodPut, path, policy, nil)
}

func rollingRestart(ctx context.Context, r *rig) error {
	for _, s := range r.servers {
		if err := s.terminate(); err != nil {
			return err
		}
		if err := s.start(); err != nil {
			return err
		}
		if err := s.waitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}
