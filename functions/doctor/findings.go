package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"fallback/functions/config"
	"fallback/functions/rabbit"
	"fallback/functions/topology"
)

// concludeSettings tells every fault of the settings. With one, nothing else is known.
func (s *survey) concludeSettings() (all []Finding) {
	for _, fault := range faults(s.unread) {
		all = append(all, fail("fallback settings lists them all", "%s", fault))
	}
	for _, stray := range s.config.Strays {
		all = append(all, warn("the nearest is "+stray.Nearest, "%s: no such setting, it has no effect", stray.Name))
	}
	switch {
	case s.unread != nil:
		return all
	case s.config.AMQPServerURL == "":
		return append(all, fail("for example amqp://user:password@localhost:5672/", "AMQP_SERVER_URL: not set"))
	}
	return append(all, good("all can be read"))
}

// faults are the single errors of a joined one.
func faults(err error) []error {
	if err == nil {
		return nil
	}
	if wrapped := errors.Unwrap(err); wrapped != nil {
		if joined, ok := wrapped.(interface{ Unwrap() []error }); ok {
			return joined.Unwrap()
		}
	}
	return []error{err}
}

// concludeSenders tells who may send to `fallback serve`.
func (s *survey) concludeSenders() []Finding {
	host, _, err := net.SplitHostPort(s.config.Addr)
	ip := net.ParseIP(host)
	switch {
	case len(s.config.Tokens)+len(s.config.WebhookSecrets) > 0:
		return []Finding{good("a token or a signature is asked for")}
	case err == nil && (host == "localhost" || ip != nil && ip.IsLoopback()):
		return []Finding{good("from this host only: FALLBACK_ADDR is %s", s.config.Addr)}
	}
	return []Finding{warn("set FALLBACK_TOKENS or FALLBACK_WEBHOOK_SECRETS, unless a firewall keeps strangers away",
		"everyone who can reach %s may send", s.config.Addr)}
}

func (s *survey) concludeBroker() []Finding {
	b := s.broker
	switch {
	case b.url == nil:
		return []Finding{skip("AMQP_SERVER_URL is not set")}
	case b.unknown != nil:
		return []Finding{fail("check the host in AMQP_SERVER_URL", "%s: %s", b.url.Hostname(), b.unknown)}
	case b.refused != nil:
		return []Finding{fail("check that RabbitMQ runs, and the host and port in AMQP_SERVER_URL", "%s: %s", b.address,
			plain(b.refused))}
	}
	return []Finding{good("%s takes connections (%s address)", b.address, b.scope)}
}

const noConnection = "there is no connection to the broker"

// concludeEncryption tells whether others can listen in.
func (s *survey) concludeEncryption() []Finding {
	b := s.broker
	switch {
	case !b.reached:
		return []Finding{skip(noConnection)}
	case b.entry != nil && b.entry.Step == "tls":
		return []Finding{fail(b.entry.Advice, "%s", plain(b.entry))}
	case b.url.Scheme == "amqp" && b.scope == public:
		return []Finding{warn("use amqps://", "the password and all requests go over a public network in the clear")}
	case b.url.Scheme == "amqp":
		return []Finding{good("none, and none is needed: the address is %s", b.scope)}
	case b.expires.IsZero():
		return []Finding{skip(noConnection)}
	}
	left := time.Until(b.expires)
	if left < dueSoon {
		return []Finding{warn("renew it", "the certificate is valid for %d days only", days(left))}
	}
	return []Finding{good("the certificate is trusted, and valid for %d days", days(left))}
}

// concludeLogin tells as whom.
func (s *survey) concludeLogin() []Finding {
	b := s.broker
	if b.connected || b.entry != nil && b.entry.Step != "tls" {
		user, _ := credentials(b.url)
		if b.connected {
			return []Finding{good("as %s on the virtual host %s", user, s.config.VHost)}
		}
		return []Finding{fail(b.entry.Advice, "as %s: %s", user, plain(b.entry))}
	}
	return []Finding{skip(noConnection)}
}

// credentials are those of a URL of the broker's, or what its clients take when it has none.
func credentials(u *url.URL) (user, password string) {
	if u.User == nil {
		return "guest", "guest"
	}
	password, _ = u.User.Password()
	return u.User.Username(), password
}

// concludeVersion tells whether it is one that all this was tried with.
func (s *survey) concludeVersion() []Finding {
	b := s.broker
	switch {
	case !b.connected:
		return []Finding{skip(noConnection)}
	case !supported(b.version):
		return []Finding{warn("use RabbitMQ 3.10 or later, before 5",
			"RabbitMQ %s: not one that fallback was tried with", cmp.Or(b.version, "of an unknown version"))}
	}
	return []Finding{good("RabbitMQ %s", b.version)}
}

// supported says whether a version is from 3.10 on and before 5.
func supported(version string) bool {
	major, minor, ok := rabbit.ParseVersion(version)
	return ok && (major == 4 || major == 3 && minor >= 10)
}

// can is what a user may do; what could not be asked, it may not.
type can struct{ publish, main, parked, configure bool }

// role says what a user looks like.
func (c can) role() Finding {
	switch {
	case c.configure:
		return warn("it has more than is needed: give the server fallback-publisher, the drain fallback-drainer",
			"looks like an administrator: it may change and delete queues")
	case c.publish && c.main && c.parked:
		return good("looks like the drain's: it publishes, and reads the main and the parked queue")
	case c.publish && c.main:
		return warn("let it, for fallback peek, redrive and discard",
			"looks like the drain's, and may not read the parked queue")
	case c.publish:
		return good("looks like the server's: it publishes, and neither reads nor configures")
	case c.main:
		return warn("use fallback-publisher or fallback-drainer",
			"reads, and does not publish: neither the server nor the drain can use it")
	default:
		return warn("use fallback-publisher for the server, fallback-drainer for the drain",
			"may do nothing that fallback needs")
	}
}

// concludeUser tells whether the main queue is to be seen, and what its user may do.
func (s *survey) concludeUser() (all []Finding) {
	if !s.broker.connected {
		return []Finding{skip(noConnection)}
	}
	u, queue := s.user, s.config.Topology.Main
	switch {
	case errors.Is(u.see, rabbit.ErrUnroutable):
		all = append(all, fail("import the definitions (fallback definitions), or correct FALLBACK_QUEUE",
			"queue %s does not exist", queue))
	case errors.Is(u.see, rabbit.ErrNotAllowed):
		all = append(all, warn("give it some permission on the queue's name, as the definitions do",
			"may not see whether queue %s is there", queue))
	case u.see != nil:
		return []Finding{fail("try again", "cannot look at queue %s: %s", queue, plain(u.see))}
	default:
		all = append(all, good("sees %s: %s ready, %s", queue, count(u.ready, "message"),
			count(u.consumers, "consumer")))
	}
	blocked := errors.Is(u.publish, rabbit.ErrBlocked) // then it may, as far as one can tell
	switch {
	case u.publish == nil || blocked:
	case errors.Is(u.publish, rabbit.ErrNotAllowed):
		all = append(all, fail("give it write permission on amq.default, as the definitions do for fallback-publisher",
			"may not publish"))
	default:
		all = append(all, fail("try again", "cannot publish: %s", plain(u.publish)))
	}
	return append(all, can{
		publish: u.publish == nil || blocked, main: may(u.readMain), parked: may(u.readMain) && may(u.readParked),
		configure: u.configure == nil,
	}.role())
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// concludeFirst tells whether first messages can be had: what the broker cannot hand over is seen in no figure.
func (s *survey) concludeFirst() (all []Finding) {
	switch {
	case !s.takes:
		return nil
	case !s.broker.connected:
		return []Finding{skip("the broker cannot be asked")}
	}
	for _, first := range s.firsts {
		switch {
		case errors.Is(first.err, rabbit.ErrHandOver):
			all = append(all, fail(`reject it by AMQP 1.0: docs/drain.md, "A message that cannot be handed over"`,
				"%s: the broker cannot hand over the first message, and closes each connection by which it tries "+
					"to; what is behind it is delivered", first.queue))
		case errors.Is(first.err, rabbit.ErrNotAllowed):
			return append(all, skip("this user may not read the queues: ask as the drain's user"))
		case errors.Is(first.err, rabbit.ErrUnroutable): // said above, or by the drain
			all = append(all, skip("%s does not exist", first.queue))
		case first.err != nil:
			all = append(all, warn("look at the broker's log", "%s: its first message does not come: %s", first.queue,
				plain(first.err)))
		default:
			all = append(all, good("%s: its first message can be read, or there is none", first.queue))
		}
	}
	return all
}

// concludePasswords tells whether a password is one that everybody knows.
func (s *survey) concludePasswords() (all []Finding) {
	set := 0
	for _, row := range []struct {
		name   string
		secret config.Secret
		scope  scope
	}{
		{"AMQP_SERVER_URL", s.config.AMQPServerURL, s.broker.scope},
		{"RABBITMQ_MANAGEMENT_URL", s.config.ManagementURL, s.management.scope},
	} {
		u, err := url.Parse(row.secret.Reveal())
		if row.secret == "" || err != nil {
			continue
		}
		set++
		user, password := credentials(u)
		var found string
		switch password {
		case topology.Demonstration(user).Plain:
			found = "the published demonstration password"
		case "guest":
			found = "RabbitMQ's own password"
		default:
			continue
		}
		const advice = "fallback definitions --private DIR makes passwords of your own"
		if row.scope == public {
			all = append(all, fail(advice, "%s has %s, on a public address", row.name, found))
		} else {
			all = append(all, warn(advice, "%s has %s: for a %s address only", row.name, found, row.scope))
		}
	}
	switch {
	case set == 0:
		return []Finding{skip("there are none")}
	case len(all) == 0:
		return []Finding{good("none of those that are published")}
	}
	return all
}
