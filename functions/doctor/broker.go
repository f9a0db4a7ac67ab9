package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"fallback/functions/config"
	"fallback/functions/rabbit"
	"fallback/functions/topology"
)

// settings tells every fault of the settings. With one, nothing else is known.
func (v *visit) settings(context.Context) {
	var err error
	if v.config, err = v.environ.Load(); err != nil {
		for _, fault := range faults(err) {
			v.fail("fallback settings lists them all", "%s", fault)
		}
		v.unread = true
		return
	}
	for _, stray := range v.config.Strays {
		v.warn("the nearest is "+stray.Nearest, "%s: no such setting, it has no effect", stray.Name)
	}
	switch {
	case v.config.AMQPServerURL == "":
		v.fail("for example amqp://user:password@localhost:5672/", "AMQP_SERVER_URL: not set")
	default:
		v.broker, _ = url.Parse(v.config.AMQPServerURL.Reveal())
		v.ok("all can be read")
	}
}

// faults are the single errors of a joined one.
func faults(err error) []error {
	if wrapped := errors.Unwrap(err); wrapped != nil {
		if joined, ok := wrapped.(interface{ Unwrap() []error }); ok {
			return joined.Unwrap()
		}
	}
	return []error{err}
}

// senders tells who may send to `fallback serve`.
func (v *visit) senders(context.Context) {
	host, _, err := net.SplitHostPort(v.config.Addr)
	ip := net.ParseIP(host)
	switch {
	case len(v.config.Tokens)+len(v.config.WebhookSecrets) > 0:
		v.ok("a token or a signature is asked for")
	case err == nil && (host == "localhost" || ip != nil && ip.IsLoopback()):
		v.ok("from this host only: FALLBACK_ADDR is %s", v.config.Addr)
	default:
		v.warn("set FALLBACK_TOKENS or FALLBACK_WEBHOOK_SECRETS, unless a firewall keeps strangers away",
			"everyone who can reach %s may send", v.config.Addr)
	}
}

// reach tells whether the broker's name has an address, and whether that takes connections.
func (v *visit) reach(ctx context.Context) {
	if v.broker == nil {
		v.skip("AMQP_SERVER_URL is not set")
		return
	}
	host := v.broker.Hostname()
	port := cmp.Or(v.broker.Port(), map[string]string{"amqp": "5672", "amqps": "5671"}[v.broker.Scheme])
	address := net.JoinHostPort(host, port)
	ctx, cancel := context.WithTimeout(ctx, one/2)
	defer cancel()
	ips, err := resolve(ctx, host)
	if err != nil {
		v.fail("check the host in AMQP_SERVER_URL", "%s: %s", host, err)
		return
	}
	v.place = placeOf(ips)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		v.fail("check that RabbitMQ runs, and the host and port in AMQP_SERVER_URL", "%s: %s", address, plain(err))
		return
	}
	defer conn.Close()
	v.reached = true
	v.ok("%s takes connections (%s address)", address, v.place)
}

const noConnection = "there is no connection to the broker"

// encryption connects, and tells whether others can listen in.
func (v *visit) encryption(ctx context.Context) {
	if !v.reached {
		v.skip(noConnection)
		return
	}
	var err error
	if v.connection, err = rabbit.Examine(ctx, v.config.AMQPServerURL.Reveal()); err != nil {
		_ = errors.As(err, &v.entry) // it always is one
	}
	expires, secured := time.Time{}, false
	if v.connection != nil {
		expires, secured = v.connection.Expires()
	}
	switch {
	case v.entry != nil && v.entry.Step == "tls":
		v.fail(v.entry.Advice, "%s", plain(v.entry))
	case v.broker.Scheme == "amqp" && v.place == public:
		v.warn("use amqps://", "the password and all requests go over a public network in the clear")
	case v.broker.Scheme == "amqp":
		v.ok("none, and none is needed: the address is %s", v.place)
	case !secured:
		v.skip(noConnection)
	default:
		v.certificate(expires)
	}
}

// certificate tells how long one will do.
func (v *visit) certificate(expires time.Time) {
	left := time.Until(expires)
	if left < dueSoon {
		v.warn("renew it", "the certificate is valid for %d days only", days(left))
		return
	}
	v.ok("the certificate is trusted, and valid for %d days", days(left))
}

// login tells as whom.
func (v *visit) login(context.Context) {
	switch {
	case v.connection != nil:
		v.ok("as %s on the virtual host %s", v.name(), v.config.VHost)
	case v.entry != nil && v.entry.Step != "tls":
		v.fail(v.entry.Advice, "as %s: %s", v.name(), plain(v.entry))
	default:
		v.skip(noConnection)
	}
}

// name is the broker's user; the client library's own when the URL has none.
func (v *visit) name() string {
	user, _ := credentials(v.broker)
	return user
}

// credentials are those of a URL of the broker's, or what its clients take when it has none.
func credentials(u *url.URL) (user, password string) {
	if u.User == nil {
		return "guest", "guest"
	}
	password, _ = u.User.Password()
	return u.User.Username(), password
}

// version tells whether it is one that all this was tried with.
func (v *visit) version(context.Context) {
	if v.connection == nil {
		v.skip(noConnection)
		return
	}
	version := v.connection.Version()
	if !supported(version) {
		v.warn("use RabbitMQ 3.10 or later, before 5", "RabbitMQ %s: not one that fallback was tried with", cmp.Or(version, "of an unknown version"))
		return
	}
	v.ok("RabbitMQ %s", version)
}

// supported says whether a version is from 3.10 on and before 5.
func supported(version string) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	major, err := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return err == nil && err2 == nil && (major == 4 || major == 3 && minor >= 10)
}

// can is what a user may do; what could not be asked, it may not.
type can struct{ publish, main, parked, configure bool }

// role says what a user looks like.
func (c can) role() (state State, found, advice string) {
	switch {
	case c.configure:
		return Warn, "looks like an administrator: it may change and delete queues", "it has more than is needed: give the server fallback-publisher, the drain fallback-drainer"
	case c.publish && c.main && c.parked:
		return OK, "looks like the drain's: it publishes, and reads the main and the parked queue", ""
	case c.publish && c.main:
		return Warn, "looks like the drain's, and may not read the parked queue", "let it, for fallback peek, redrive and discard"
	case c.publish:
		return OK, "looks like the server's: it publishes, and neither reads nor configures", ""
	case c.main:
		return Warn, "reads, and does not publish: neither the server nor the drain can use it", "use fallback-publisher or fallback-drainer"
	default:
		return Warn, "may do nothing that fallback needs", "use fallback-publisher for the server, fallback-drainer for the drain"
	}
}

// user tells whether the main queue is to be seen, and what its user may do.
func (v *visit) user(ctx context.Context) {
	if v.connection == nil {
		v.skip(noConnection)
		return
	}
	queue, parked := v.config.Topology.Main, v.config.Topology.Parked
	switch ready, consumers, err := v.connection.MaySee(ctx, queue); {
	case errors.Is(err, rabbit.ErrUnroutable):
		v.fail("import the definitions (fallback definitions), or correct FALLBACK_QUEUE", "queue %s does not exist", queue)
	case errors.Is(err, rabbit.ErrNotAllowed):
		v.warn("give it some permission on the queue's name, as the definitions do", "may not see whether queue %s is there", queue)
	case err != nil:
		v.fail("try again", "cannot look at queue %s: %s", queue, plain(err))
		return
	default:
		v.ok("sees %s: %s ready, %s", queue, count(ready, "message"), count(consumers, "consumer"))
	}

	var may can
	// A queue that is not there can be read by nobody, and who may is told that it is missing.
	reads := func(queue string) bool {
		err := v.connection.MayRead(ctx, queue)
		return err == nil || errors.Is(err, rabbit.ErrUnroutable)
	}
	if may.main = reads(queue); may.main {
		may.parked = reads(parked)
	}
	may.configure = v.connection.MayConfigure(ctx, queue) == nil
	err := v.connection.MayPublish(ctx, queue)
	switch {
	case err == nil:
		may.publish, v.published = true, true
	case errors.Is(err, rabbit.ErrBlocked):
		may.publish, v.blocked = true, err // as far as one can tell
	case errors.Is(err, rabbit.ErrNotAllowed):
		v.fail("give it write permission on amq.default, as the definitions do for fallback-publisher", "may not publish")
	default:
		v.fail("try again", "cannot publish: %s", plain(err))
	}
	state, found, advice := may.role()
	v.tell(Finding{v.check, state, found, advice})
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// passwords tells whether a password is one that everybody knows.
func (v *visit) passwords(ctx context.Context) {
	any, weak := false, false
	for _, row := range []struct {
		name   string
		secret config.Secret
	}{{"AMQP_SERVER_URL", v.config.AMQPServerURL}, {"RABBITMQ_MANAGEMENT_URL", v.config.ManagementURL}} {
		u, err := url.Parse(row.secret.Reveal())
		if row.secret == "" || err != nil {
			continue
		}
		any = true
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
		weak = true
		const advice = "fallback definitions --private DIR makes passwords of your own"
		if place := locate(ctx, u); place == public {
			v.fail(advice, "%s has %s, on a public address", row.name, found)
		} else {
			v.warn(advice, "%s has %s: for a %s address only", row.name, found, place)
		}
	}
	switch {
	case !any:
		v.skip("there are none")
	case !weak:
		v.ok("none of those that are published")
	}
}
