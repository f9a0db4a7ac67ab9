package doctor

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"time"

	"fallback/functions/config"
	"fallback/functions/management"
	"fallback/functions/rabbit"
)

// survey is what was asked, and what came of it: of each question a value or an error. What was not asked is zero.
type survey struct {
	takes  bool // messages, for a moment
	config config.Config
	unread error // of the settings

	keys       keysSurvey
	broker     brokerSurvey
	user       userSurvey
	management managementSurvey
	firsts     []firstSurvey
	target     targetSurvey

	connection *rabbit.Examination // for the questions to come; nil without one
	client     *management.Client  // likewise
}

// brokerSurvey is of the way to the broker.
type brokerSurvey struct {
	url       *url.URL // nil when AMQP_SERVER_URL is not set
	address   string
	scope     scope
	unknown   error // the host's name
	refused   error // the address does not take connections
	reached   bool
	entry     *rabbit.EntryError // why there is no connection
	connected bool
	version   string
	expires   time.Time // the certificate; zero without TLS
}

// userSurvey is what the broker's user may do. Each error is why it may not; nil says that it may.
type userSurvey struct {
	asked              bool
	see                error
	ready, consumers   int
	readMain           error
	readParked         error // asked where it may read the main queue
	configure, publish error
}

// managementSurvey is what the management API says.
type managementSurvey struct {
	url       *url.URL // nil when it is not set
	scope     scope
	name      string // of its user
	tags      []string
	err       error
	nodes     []management.Node
	nodesErr  error
	queues    []management.Queue
	queuesErr error
}

// firstSurvey is how it went to have a queue's first message.
type firstSurvey struct {
	queue string
	err   error
}

func (s *survey) close() {
	if s.connection != nil {
		s.connection.Close()
	}
}

// askBroker asks whether the broker's name has an address, and whether that takes connections.
func (s *survey) askBroker(ctx context.Context) {
	b := &s.broker
	if s.config.AMQPServerURL == "" {
		return
	}
	b.url, _ = url.Parse(s.config.AMQPServerURL.Reveal()) // the settings have been looked at
	port := cmp.Or(b.url.Port(), map[string]string{"amqp": "5672", "amqps": "5671"}[b.url.Scheme])
	b.address = net.JoinHostPort(b.url.Hostname(), port)
	ctx, cancel := context.WithTimeout(ctx, checkTime/2)
	defer cancel()
	var ips []net.IP
	if ips, b.unknown = resolve(ctx, b.url.Hostname()); b.unknown != nil {
		return
	}
	b.scope = scopeOf(ips)
	var conn net.Conn
	if conn, b.refused = (&net.Dialer{}).DialContext(ctx, "tcp", b.address); b.refused == nil {
		b.reached = true
		_ = conn.Close()
	}
}

// askConnection connects.
func (s *survey) askConnection(ctx context.Context) {
	b := &s.broker
	if !b.reached {
		return
	}
	var err error
	if s.connection, err = rabbit.Examine(ctx, s.config.AMQPServerURL.Reveal()); err != nil {
		_ = errors.As(err, &b.entry) // it always is one
		return
	}
	b.connected, b.version = true, s.connection.Version()
	b.expires, _ = s.connection.Expires()
}

// askUser asks what the user may do.
func (s *survey) askUser(ctx context.Context) {
	if s.connection == nil {
		return
	}
	u, main := &s.user, s.config.Topology.Main
	u.asked = true
	if u.ready, u.consumers, u.see = s.connection.MaySee(ctx, main); u.unseen() {
		return // nothing more can be asked
	}
	if u.readMain = s.connection.MayRead(ctx, main); may(u.readMain) {
		u.readParked = s.connection.MayRead(ctx, s.config.Topology.Parked)
	}
	u.configure = s.connection.MayConfigure(ctx, main)
	u.publish = s.connection.MayPublish(ctx, main)
}

// unseen says that nothing is known of the main queue, nor whether there is one.
func (u *userSurvey) unseen() bool {
	return u.see != nil && !errors.Is(u.see, rabbit.ErrUnroutable) && !errors.Is(u.see, rabbit.ErrNotAllowed)
}

// may says whether a user may read a queue. One that is not there can be read by nobody, and who may is told that it
// is missing.
func may(err error) bool { return err == nil || errors.Is(err, rabbit.ErrUnroutable) }

// askManagement asks whether the management API can be asked.
func (s *survey) askManagement(ctx context.Context) {
	if s.config.ManagementURL == "" {
		return
	}
	m := &s.management
	m.url, _ = url.Parse(s.config.ManagementURL.Reveal()) // the settings have been looked at
	m.scope = locate(ctx, m.url)
	client, err := management.New(s.config.ManagementURL.Reveal())
	if m.err = err; err != nil {
		return
	}
	if m.name, m.tags, m.err = client.WhoAmI(ctx); m.err == nil {
		s.client = client
	}
}

// askNodes asks how the broker's nodes are.
func (s *survey) askNodes(ctx context.Context) {
	if s.client != nil {
		s.management.nodes, s.management.nodesErr = s.client.Nodes(ctx)
	}
}

// askQueues asks of all queues, again where the broker has no statistics of one yet.
func (s *survey) askQueues(ctx context.Context) {
	if s.client == nil {
		return
	}
	m := &s.management
	for {
		m.queues, m.queuesErr = s.client.Queues(ctx, s.config.VHost, s.config.Topology.Queues())
		young := slices.ContainsFunc(m.queues,
			func(q management.Queue) bool { return errors.Is(q.Err, management.ErrNoStatistics) })
		if deadline, _ := ctx.Deadline(); !young || time.Until(deadline) < 2*time.Second {
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// askFirst takes the first messages of the main and the parked queue, and gives them back.
func (s *survey) askFirst(ctx context.Context) {
	if !s.takes || !s.broker.connected {
		return
	}
	for _, queue := range []string{s.config.Topology.Main, s.config.Topology.Parked} {
		source := rabbit.NewSource(rabbit.SourceOptions{URL: s.config.AMQPServerURL.Reveal(), Queue: queue})
		err := takeFirst(ctx, source)
		source.Close()
		s.firsts = append(s.firsts, firstSurvey{queue, err})
		if errors.Is(err, rabbit.ErrNotAllowed) {
			return // nor the other
		}
	}
}

func takeFirst(ctx context.Context, source *rabbit.Source) error {
	if waiting, err := source.Waiting(ctx); err != nil || waiting == 0 {
		return err
	}
	if err := source.Take(ctx, 1); err != nil {
		return err
	}
	d, err := source.Next(ctx)
	if errors.Is(err, rabbit.ErrDry) {
		return nil // a drain has it
	}
	if err != nil {
		return err
	}
	return errors.Join(source.Stop(ctx), d.Requeue())
}
