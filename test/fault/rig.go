package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/rabbit"
	"fallback/functions/topology"
	"fallback/test/deploy"
	"fallback/test/harness"
)

// rig is one fault's world: a virtual host, the proxy before the broker, what serves, and the load.
type rig struct {
	vhost    *harness.VHost
	proxy    *proxy
	servers  []*process       // none when the server runs in this one, or a function does
	function *deploy.Function // instead of servers
	outlet   *outlet          // the drain and the primary; nil without
	ledger   *ledger
	load     *load
	timeout  time.Duration // of the server, for one request
	rand     *rand.Rand
	password string                 // of the publisher's user
	healed   time.Time              // the end of the fault
	after    <-chan harness.Elapsed // gets the time from then to the first 202; nil before
	strikes  int                    // how often what is over at once is done in a strike
	left     atomic.Int64           // clients that left before their answer

	stop context.CancelFunc // ends what goes on beside the load
	work sync.WaitGroup
}

// plan says what a rig is made of.
type plan struct {
	seed    uint64
	name    string            // decides, with seed, what is chosen at random
	servers int               // processes
	query   string            // of the AMQP URL
	workers int               // processes of the drain; 0 for none
	drain   map[string]string // their further settings
	strikes int               // see rig
	keys    int               // see load
	timeout time.Duration
	env     map[string]string
}

// newRig makes the parts, without a server. They go when the test ends.
func newRig(t testing.TB, broker *harness.Broker, p plan) *rig {
	t.Helper()
	r := &rig{
		vhost: broker.VHost(t), timeout: p.timeout, strikes: p.strikes,
		password: topology.Demonstration(topology.Publisher).Plain,
		ledger:   newLedger(allowed(p.timeout + time.Second)),
	}
	var err error
	if r.proxy, err = startProxy(broker.AMQP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.proxy.close)
	t.Cleanup(func() {
		if plain := topology.Demonstration(topology.Publisher).Plain; r.password != plain {
			if err := r.setPassword(plain); err != nil {
				t.Error(err)
			}
		}
	})
	name := uint64(0)
	for _, c := range p.name {
		name = name*31 + uint64(c)
	}
	r.rand = rand.New(rand.NewPCG(p.seed, name))
	r.load = newLoad(r.ledger, p.seed, p.timeout)
	r.load.keys = p.keys
	return r
}

// serve starts server processes and waits until they are ready.
func (r *rig) serve(t testing.TB, p plan) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	for range max(p.servers, 1) {
		s := &process{command: "serve", addr: harness.FreeAddress(), log: &harness.Log{}, env: map[string]string{
			"AMQP_SERVER_URL":         r.url(p.query),
			"RABBITMQ_MANAGEMENT_URL": r.vhost.ManagementURL(topology.Monitor),
			"FALLBACK_TIMEOUT":        p.timeout.String(),
			"LOG_FORMAT":              "text",
		}}
		for name, value := range p.env {
			s.env[name] = value
		}
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			log, dump := s.quit()
			if t.Failed() {
				t.Logf("the log of %s:\n%s\nits goroutines:\n%s", s.addr, tail(log, 40), whereabouts(dump))
			}
		})
		if err := s.waitReady(ctx); err != nil {
			t.Fatalf("%v\n%s", err, s.log)
		}
		r.servers = append(r.servers, s)
		r.load.doors = append(r.load.doors, door{s.addr, "/fallback"})
	}
}

// deploy starts the built function behind the platform's gateway.
func (r *rig) deploy(t testing.TB, p plan) {
	t.Helper()
	enqueue, err := harness.Build("./packages/fallback/enqueue")
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"AMQP_SERVER_URL": r.url(p.query), "FALLBACK_TIMEOUT": p.timeout.String()}
	r.function, err = deploy.Start(context.Background(), deploy.Config{Exec: enqueue, Env: env})
	if err != nil {
		t.Fatal(err)
	}
	gateway := httptest.NewServer(r.function)
	t.Cleanup(func() {
		gateway.Close()
		if err := r.function.Close(); err != nil {
			t.Errorf("the function ended with %v", err)
		}
		for _, fault := range r.function.Faults() {
			t.Errorf("the platform saw: %v", fault)
		}
		if t.Failed() {
			t.Logf("the function's log:\n%s", tail(r.function.Logs(), 40))
		}
	})
	r.load.doors = []door{{gateway.Listener.Addr().String(), r.function.Route()}}
}

// url is the broker's, through the proxy, with the publisher's present password.
func (r *rig) url(query string) string {
	u := url.URL{Scheme: "amqp", Host: r.proxy.addr(), User: url.UserPassword(topology.Publisher, r.password)}
	return u.String() + "/" + url.PathEscape(r.vhost.Name) + query
}

// background runs something until stopBackground.
func (r *rig) background(run func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	r.work.Go(func() { run(ctx) })
}

func (r *rig) stopBackground() {
	r.stop()
	r.work.Wait()
}

// readEmpty takes everything off the main queue and into the ledger, past the proxy. While something that was accepted
// is missing, it reads again, until nothing has come for a time: a queue that does not answer within 250 ms has no
// messages, by what the broker says (rabbit_quorum_queue:stat/2).
func (r *rig) readEmpty(ctx context.Context) error {
	const quiet = 10 * time.Second
	for since := time.Now(); ; {
		_, before := r.ledger.progress()
		if err := r.readQueue(ctx, topology.DefaultQueue, r.ledger.delivered); err != nil {
			return err
		}
		open, now := r.ledger.progress()
		if now > before {
			since = time.Now()
		}
		if open == 0 || time.Since(since) > quiet {
			return nil
		}
	}
}

// entering is how a request gets into the ledger.
type entering func(id uint64, known bool, sum uint64, message string)

func (r *rig) readQueue(ctx context.Context, queue string, enter entering) error {
	ch, done, err := r.channel(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := ch.Qos(1000, 0, false); err != nil {
		return err
	}
	for {
		if err := r.readSome(ctx, ch, queue, enter); err != nil {
			return err
		}
		// Everything that was delivered has been acknowledged on this channel: what is not ready is not there.
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err != nil || q.Messages == 0 {
			return err
		}
	}
}

// readSome reads until nothing comes for a while.
func (r *rig) readSome(ctx context.Context, ch *amqp.Channel, queue string, enter entering) error {
	const consumer = "ledger"
	deliveries, err := ch.Consume(queue, consumer, false, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	const quiet = 200 * time.Millisecond
	idle := time.NewTimer(quiet)
	defer idle.Stop()
	cancelled := make(chan error, 1)
	for unacked := 0; ; {
		select {
		case d, open := <-deliveries:
			if !open {
				select {
				case err := <-cancelled:
					return err
				case <-time.After(harness.Patience):
					return errors.New("the broker ended the channel while the queue was read")
				}
			}
			note(d, enter)
			if unacked++; unacked == 500 || len(deliveries) == 0 {
				if err := ch.Ack(d.DeliveryTag, true); err != nil {
					return err
				}
				unacked = 0
			}
			idle.Reset(quiet)
		case <-idle.C:
			// What the broker sends until it has heard this still comes, and then the end.
			go func() { cancelled <- ch.Cancel(consumer, false) }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// channel is one of the admin's that confirms, as soon as the broker and its queue are there, and what closes its
// connection.
func (r *rig) channel(ctx context.Context) (ch *amqp.Channel, done func() error, err error) {
	err = poll(ctx, "the broker", func() (bool, error) {
		conn, err := amqp.Dial(r.vhost.URL(topology.Admin))
		if err != nil {
			return false, nil
		}
		if ch, err = conn.Channel(); err == nil {
			if _, err = ch.QueueDeclarePassive(topology.DefaultQueue, true, false, false, false, nil); err == nil {
				err = ch.Confirm(false)
			}
			if done = conn.Close; err == nil {
				return true, nil
			}
		}
		conn.Close()
		return false, nil
	})
	return ch, done, err
}

// note enters a message in the ledger. One that cannot be read is known by its correlation id, see unreadable.
func note(d amqp.Delivery, enter entering) {
	request, err := rabbit.FromMessage(d)
	if err != nil {
		id, err := strconv.ParseUint(d.CorrelationId, 10, 64)
		enter(id, err == nil, checksum("", "", nil, d.Body), d.MessageId)
		return
	}
	id, err := strconv.ParseUint(request.Header.Get(ledgerID), 10, 64)
	enter(id, err == nil, checksum(request.Method, request.Target, request.Header, request.Body), d.MessageId)
}

// holdings is what must not grow.
type holdings struct {
	files       []int // open in each process
	connections int   // to the virtual host
}

// over says whether anything has grown.
func (h holdings) over(before holdings) bool {
	for i, n := range h.files {
		if n > before.files[i] {
			return true
		}
	}
	return h.connections > before.connections
}

func (r *rig) holdings() (holdings, error) {
	var h holdings
	var pids []int
	for _, s := range r.servers {
		pids = append(pids, s.pid())
	}
	if r.function != nil {
		pids = append(pids, r.function.PID())
	}
	for _, pid := range pids {
		n, err := openFiles(pid)
		if err != nil {
			return h, err
		}
		h.files = append(h.files, n)
	}
	names, err := r.connections()
	h.connections = len(names)
	return h, err
}

// connections are the names of those that the publisher's user has to the virtual host.
func (r *rig) connections() ([]string, error) {
	var rows []struct{ Name, VHost string }
	err := r.vhost.Call(http.MethodGet, "/api/connections/username/"+topology.Publisher, nil, &rows)
	var names []string
	for _, row := range rows {
		if row.VHost == r.vhost.Name {
			names = append(names, row.Name)
		}
	}
	return names, err
}

// leaks waits until no more is held than before, for a second without a break, and says what still is. One good instant
// says little: the broker's list of connections is behind, and what is about to be made again is not there yet.
func (r *rig) leaks(ctx context.Context, before holdings) error {
	var now holdings
	var since time.Time // no more was held
	err := poll(ctx, "things to be let go", func() (bool, error) {
		var err error
		if now, err = r.holdings(); err != nil {
			return false, err
		}
		if now.over(before) {
			since = time.Time{}
			return false, nil
		}
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) >= time.Second, nil
	})
	if err != nil {
		return fmt.Errorf("%w: files %v, were %v; connections %d, were %d", err, now.files, before.files,
			now.connections, before.connections)
	}
	return nil
}

// tail is the end of a text, in lines.
func tail(s string, lines int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
