//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/envelope"
	"fallback/functions/topology"
	"fallback/test/harness"
)

// crowdVariable is how many requests of the limited sender wait in TestCrowd; the long suite sets it.
const crowdVariable = "FALLBACK_TEST_CROWD"

// TestCrowd holds that the good requests of others are delivered that wait between and behind a crowd of one sender's,
// of whom the primary takes a few a second; that nothing is lost, nothing sent sooner than asked, and nothing moved
// again and again; and that a retry queue that is full leaves them to the next longer one.
func TestCrowd(t *testing.T) {
	t.Parallel()
	limited := 10_000
	if s := os.Getenv(crowdVariable); s != "" {
		var err error
		if limited, err = strconv.Atoi(s); err != nil {
			t.Fatalf("%s: %s", crowdVariable, err)
		}
	}
	fallback := build(t)
	for _, row := range []struct {
		name    string
		limited int
		most    []int // on the shortest retry queues
	}{
		{"with room", limited, nil},
		{"with full queues", 10_000, []int{300, 600}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			names, err := topology.Of(topology.DefaultQueue)
			if err != nil {
				t.Fatal(err)
			}
			c := &crowd{limited: row.limited, good: min(row.limited/50, 1000), vhost: broker.VHost(t), names: names,
				notBefore: map[string]time.Time{}, taken: map[string]bool{}}
			for i, most := range row.most {
				setPolicy(t, c.vhost, names.Retries[i].Name, "max-length", most)
			}
			c.fill(t)
			c.drain(t, fallback)
			for i, most := range row.most {
				if n := c.vhost.Count(t, names.Retries[i].Name); n > 2*most { // it may go a little over its limit
					t.Errorf("%d on the retry queue that takes %d", n, most)
				}
				if c.vhost.Count(t, names.Retries[len(row.most)].Name) == 0 {
					t.Error("the longest retry queue was given none")
				}
			}
			c.audit(t)
		})
	}
}

// crowd is what waits, and what the primary knows of it.
type crowd struct {
	limited, good int
	vhost         *harness.VHost
	names         topology.Topology

	mu        sync.Mutex // guards the rest
	notBefore map[string]time.Time
	taken     map[string]bool // by id
	goods     int             // of these
	early     int             // came sooner than they were asked to
	bucket    float64
	filled    time.Time
}

const (
	// perSecond is how many the primary takes of the limited sender, asked what it asks of those above.
	perSecond, asked = 5, 2 * time.Second
)

// answer is the primary's.
func (c *crowd) answer(r harness.Received) harness.Answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := r.Header.Get("Fallback-Id")
	if r.At.Before(c.notBefore[id]) {
		c.early++
	}
	if strings.HasPrefix(id, "limited") {
		c.bucket = min(perSecond, c.bucket+perSecond*r.At.Sub(c.filled).Seconds())
		c.filled = r.At
		if c.bucket < 1 {
			c.notBefore[id] = time.Now().Add(asked)
			return harness.Answer{Status: http.StatusTooManyRequests, RetryAfter: int(asked.Seconds())}
		}
		c.bucket--
	} else if !c.taken[id] {
		c.goods++
	}
	c.taken[id] = true
	return harness.Answer{}
}

// fill puts all on the queue: half of the good ones among the first tenth of the crowd, half behind all of it.
func (c *crowd) fill(t *testing.T) {
	t.Helper()
	ch := c.vhost.Channel(t, topology.Admin)
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	var last *amqp.DeferredConfirmation
	put := func(sender string, i int) {
		r := envelope.Request{
			ID: fmt.Sprint(sender, "-", i), Method: http.MethodPost, Target: "/orders", ReceivedAt: time.Now(),
			Header: http.Header{"Authorization": {sender}},
		}
		var err error
		if last, err = ch.PublishWithDeferredConfirm("", c.names.Main, true, false, amqp.Publishing{
			Headers: amqp.Table{"fallback": r.Metadata()}, DeliveryMode: amqp.Persistent, MessageId: r.ID,
			Body: []byte("x"),
		}); err != nil {
			t.Fatal(err)
		}
	}
	between := c.limited / 10 / (c.good / 2) // of the crowd, from one good one to the next
	good := 0
	for i := range c.limited {
		put("limited", i)
		if i%between == 0 && good < c.good/2 {
			put("good", good)
			good++
		}
		if i%1000 == 0 {
			last.Wait() // the broker is not to have them all in hand
		}
	}
	for ; good < c.good; good++ {
		put("good", good)
	}
	if !last.Wait() {
		t.Fatal("the queue does not take them")
	}
	harness.Eventually(t, "all to wait", func() bool { return c.vhost.Count(t, c.names.Main) == c.limited+c.good })
}

// drain has a worker deliver the good ones. It takes as long as it takes to move the crowd once: how long is the
// machine's, but it is nothing of the time that the primary needs for the crowd.
func (c *crowd) drain(t *testing.T, fallback program) {
	t.Helper()
	primary := harness.NewPrimary(t, c.answer)
	w := fallback.drain(t, harness.Settings{
		"AMQP_SERVER_URL": c.vhost.URL(topology.Drainer), "FALLBACK_TARGET_URL": primary.URL,
		"FALLBACK_DRAIN_SCHEDULE": "1s",
	})
	harness.Within(t, time.Duration(c.limited)*time.Second/perSecond/20, "the good ones", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.goods == c.good
	})
	c.count(t)
	w.terminate(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.early > 0 {
		t.Errorf("%d came sooner than the primary had asked", c.early)
	}
}

// count holds that the main queue has not given the same ones out again and again. The worker is not to end before:
// the broker may forget what a channel did in the last seconds before it was closed.
func (c *crowd) count(t *testing.T) {
	t.Helper()
	all, deliveries := c.limited+c.good, 0
	harness.Eventually(t, "the broker's statistics", func() bool { // the last good one is behind all others
		deliveries = c.deliveries(t)
		return deliveries >= all
	})
	if most := 3 * all; deliveries > most {
		t.Errorf("%d messages were delivered to the worker %d times, want %d at most", all, deliveries, most)
	}
	t.Logf("%d messages, %d deliveries", all, deliveries)
}

// audit holds that each is delivered, or on one of the queues.
func (c *crowd) audit(t *testing.T) {
	t.Helper()
	all := c.limited + c.good
	found := make(chan string, 1000)
	ch := c.vhost.Channel(t, topology.Admin)
	if err := ch.Qos(1000, 0, false); err != nil {
		t.Fatal(err)
	}
	for _, name := range c.names.Queues() {
		messages, err := ch.Consume(name, "", false, false, false, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for m := range messages {
				_ = m.Ack(false)
				select {
				case found <- m.MessageId:
				case <-t.Context().Done():
					return
				}
			}
		}()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.taken) < all {
		select {
		case id := <-found:
			c.taken[id] = true
		case <-time.After(harness.Patience):
			t.Fatalf("%d of %d are neither delivered nor on a queue", all-len(c.taken), all)
		}
	}
}

// deliveries is how many messages the main queue has given out, by the broker's statistics, which are a few seconds
// late.
func (c *crowd) deliveries(t *testing.T) int {
	t.Helper()
	var q struct {
		Stats struct {
			Deliveries int `json:"deliver_get"`
		} `json:"message_stats"`
	}
	if err := c.vhost.Call(http.MethodGet, "/api/queues/"+url.PathEscape(c.vhost.Name)+"/"+c.names.Main, nil,
		&q); err != nil {
		t.Fatal(err)
	}
	return q.Stats.Deliveries
}
