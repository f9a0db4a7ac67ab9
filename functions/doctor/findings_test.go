package doctor

import (
	"errors"
	"fmt"
	"net/url"
	"testing"
	"time"

	"fallback/functions/config"
	"fallback/functions/management"
	"fallback/functions/rabbit"
	"fallback/functions/topology"
)

// TestFindings holds what follows from a survey, which asks nobody.
func TestFindings(t *testing.T) {
	t.Parallel()
	amqp, _ := url.Parse("amqp://fallback-publisher:own@broker/")
	amqps, _ := url.Parse("amqps://fallback-publisher:own@broker/")
	api, _ := url.Parse("http://fallback-monitor:own@broker:15672")
	blocked := fmt.Errorf("%w (memory)", rabbit.ErrBlocked)
	up := []management.Node{{Name: "a", Running: true}}
	for _, row := range []struct {
		check  string
		survey survey
		state  State
		says   string
	}{
		{"broker", survey{}, Skip, "not set"},
		{"broker", survey{broker: brokerSurvey{url: amqp, unknown: errors.New("not found")}}, Fail,
			"broker: not found"},
		{"broker", survey{broker: brokerSurvey{url: amqp, address: "broker:5672", refused: errors.New("refused")}},
			Fail, "broker:5672: refused"},
		{"broker", survey{broker: brokerSurvey{url: amqp, address: "broker:5672", scope: private, reached: true}}, OK,
			"private"},
		{"tls", survey{broker: brokerSurvey{url: amqp}}, Skip, noConnection},
		{"tls", survey{broker: brokerSurvey{url: amqp, reached: true, scope: public}}, Warn, "amqps://"},
		{"tls", survey{broker: brokerSurvey{url: amqp, reached: true, scope: loopback}}, OK, "none is needed"},
		{"tls", survey{broker: brokerSurvey{url: amqps, reached: true}}, Skip, noConnection},
		{"tls", survey{broker: brokerSurvey{url: amqps, reached: true, expires: time.Now().Add(50 * time.Hour)}}, Warn,
			"2 days only"},
		{"tls", survey{broker: brokerSurvey{url: amqps, reached: true, expires: time.Now().Add(1000 * time.Hour)}}, OK,
			"41 days"},
		{"login", survey{}, Skip, noConnection},
		{"login", survey{broker: brokerSurvey{url: amqp, connected: true}, config: config.Config{VHost: "/"}}, OK,
			"fallback-publisher on the virtual host /"},
		{"version", survey{broker: brokerSurvey{connected: true, version: "4.3.6"}}, OK, "4.3.6"},
		{"version", survey{broker: brokerSurvey{connected: true}}, Warn, "unknown version"},
		{"user", survey{}, Skip, noConnection},
		{"user", user(userSurvey{ready: 1, consumers: 2, readMain: rabbit.ErrNotAllowed,
			configure: rabbit.ErrNotAllowed}), OK, "1 message ready, 2 consumers"},
		{"user", user(userSurvey{readMain: rabbit.ErrNotAllowed, configure: rabbit.ErrNotAllowed}), OK, "the server's"},
		{"user", user(userSurvey{configure: rabbit.ErrNotAllowed}), OK, "the drain's"},
		{"user", user(userSurvey{configure: rabbit.ErrNotAllowed, publish: blocked}), OK, "the drain's"},
		{"user", user(userSurvey{configure: rabbit.ErrNotAllowed, publish: rabbit.ErrNotAllowed}), Fail,
			"may not publish"},
		{"user", user(userSurvey{configure: rabbit.ErrNotAllowed, publish: errors.New("no answer in time")}), Fail,
			"cannot publish: no answer in time"},
		{"user", user(userSurvey{see: rabbit.ErrUnroutable}), Fail, "does not exist"},
		{"user", user(userSurvey{see: rabbit.ErrNotAllowed}), Warn, "may not see"},
		{"user", user(userSurvey{see: errors.New("no answer in time")}), Fail,
			"cannot look at queue FallbackAPIQueue: no answer in time"},
		{"management", survey{}, Skip, "RABBITMQ_MANAGEMENT_URL"},
		{"management", survey{management: managementSurvey{url: api, err: errors.New("401")}}, Fail,
			"broker:15672: 401"},
		{"management", survey{management: managementSurvey{url: api, name: "m", tags: []string{"administrator"}}}, Warn,
			"m is an administrator"},
		{"management", survey{management: managementSurvey{url: api, name: "m"}}, Warn, "does not have the tag"},
		{"management", survey{management: managementSurvey{url: api, name: "m", tags: []string{"monitoring"}}}, Warn,
			"https://"},
		{"management", survey{management: managementSurvey{url: api, name: "m", tags: []string{"monitoring"},
			scope: private}}, OK, "as m"},
		{"alarms", survey{}, Skip, "neither"},
		{"alarms", user(userSurvey{}), OK, "takes messages"},
		{"alarms", user(userSurvey{see: errors.New("no answer in time")}), Skip, "neither"},
		{"alarms", user(userSurvey{publish: blocked}), Fail, "memory"},
		{"alarms", survey{management: managementSurvey{url: api, nodes: up}, user: userSurvey{publish: blocked}}, Fail,
			"until then every request gets a 503"},
		{"alarms", survey{management: managementSurvey{url: api, nodes: up}}, OK, "one disk"},
		{"alarms", survey{management: managementSurvey{url: api, nodesErr: errors.New("403")}}, Warn,
			"cannot look at the nodes: 403"},
		{"queue", survey{}, Skip, "through the management API only"},
		{"queue", survey{management: managementSurvey{url: api, queuesErr: errors.New("403")}}, Fail,
			"cannot look at the queues: 403"},
		{"queue", survey{management: managementSurvey{url: api,
			queues: []management.Queue{{Name: "q", Err: management.ErrNotFound}}}}, Fail, "q does not exist"},
		{"queue", retries(t, 0), OK, "retry.10s: quorum, 0 messages"},
		{"queue", retries(t, 1), Warn, "retry.10s: quorum, 1 message, 0 % full, policy FallbackAPIQueue.retry.10s; " +
			"the primary did not take them"},
		{"first", survey{takes: true}, Skip, "the broker cannot be asked"},
		{"first", firsts(nil), OK, "can be read"},
		{"first", firsts(rabbit.ErrHandOver), Fail, "cannot hand over"},
		{"first", firsts(rabbit.ErrNotAllowed), Skip, "ask as the drain's user"},
		{"first", firsts(rabbit.ErrUnroutable), Skip, "q does not exist"},
		{"first", firsts(errors.New("no answer in time")), Warn, "does not come: no answer in time"},
	} {
		t.Run(row.check+" "+row.says, func(t *testing.T) {
			t.Parallel()
			for _, c := range checks {
				if c.name == row.check {
					want(t, c.conclude(&row.survey), row.state, row.says)
				}
			}
		})
	}
}

// user is a survey of a connection's user.
func user(u userSurvey) survey {
	u.asked = true
	names, _ := topology.Of(topology.DefaultQueue)
	return survey{config: config.Config{Topology: names}, broker: brokerSurvey{connected: true}, user: u}
}

// firsts is a survey of a queue's first message.
func firsts(err error) survey {
	return survey{takes: true, broker: brokerSurvey{connected: true}, firsts: []firstSurvey{{"q", err}}}
}

// retries is a survey of a retry queue with so many messages.
func retries(t *testing.T, n int) survey {
	t.Helper()
	names, _ := topology.Of(topology.DefaultQueue)
	main, _ := asDefined(t, names.Main)
	retry, _ := asDefined(t, names.Retries[0].Name)
	retry.Messages = n
	u, _ := url.Parse("http://broker:15672")
	return survey{config: config.Config{Topology: names},
		management: managementSurvey{url: u, queues: []management.Queue{main, retry}}}
}
