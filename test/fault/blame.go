package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// blamed is the rest of the list behind the queue: faults in which it is to be told whose an answer is, a request's
// own, its sender's, or everybody's. It is a part of replayed.
var blamed = []fault{
	{
		name: "primary limits one sender", about: "one of 32 senders gets a 429 with Retry-After: 4, the others a 200",
		strike: func(_ context.Context, r *rig) error {
			r.outlet.those(bySender(0), harness.Answer{Status: http.StatusTooManyRequests, RetryAfter: 4,
				After: primaryTime})
			return nil
		},
		heal: answersWell, hold: span[time.Duration]{2 * time.Second, 3 * time.Second}, fixed: true,
		shows: refuses, breaks: parksNone, flows: true, keys: 32, workers: 1, serves: true,
	},
	{
		name:   "the way to the primary is closed",
		about:  "everything gets a 404, a 403, or a redirect, for moments and for seconds",
		strike: closeWay(http.StatusNotFound, http.StatusForbidden, http.StatusFound), heal: openWay,
		hold:  span[time.Duration]{500 * time.Millisecond, time.Second},
		shows: refuses, breaks: parksNone, keys: 16, workers: 1, serves: true,
	},
	{
		name:   "the proxy in front cannot reach the primary",
		about:  "everything gets a 521, a 520, a 530 or a 529, for moments and for seconds",
		strike: closeWay(521, 520, 530, 529), heal: openWay,
		hold:  span[time.Duration]{500 * time.Millisecond, time.Second},
		shows: refuses, breaks: parksNone, keys: 16, workers: 1, serves: true,
	},
	{
		name: "answers without an end", about: "one in twenty is a 101 on whose connection nothing follows, or a " +
			"head of megabytes",
		strike: answerOdd, heal: answersWell, hold: span[time.Duration]{500 * time.Millisecond, time.Second},
		shows: duplicates, breaks: parksNone, flows: true, workers: 1, serves: true,
	},
	{
		name: "a loop", about: "the target answers as another door does: a 202 with an id that was not sent",
		strike: func(_ context.Context, r *rig) error { return leadBack(r, "anothers") },
		heal:   leadOn, hold: span[time.Duration]{500 * time.Millisecond, time.Second},
		shows: refuses, breaks: parksNone, keys: 16, workers: 1, serves: true,
	},
	{
		name:   "messages that cannot be read",
		about:  "headers nested 40 deep, or with 9,000 elements, come between the requests",
		strike: publishOdd, heal: nothing, hold: span[time.Duration]{200 * time.Millisecond, 400 * time.Millisecond},
		shows: parks, breaks: parksOddAtOnce, flows: true, workers: 1, serves: true,
	},
	{
		name: "messages that cannot be read, and the worker's network reset", about: "both, again and again",
		strike: func(ctx context.Context, r *rig) error {
			r.background(every(300*time.Millisecond, r.outlet.proxy.reset))
			return publishOdd(ctx, r)
		},
		heal: healBackground, hold: span[time.Duration]{200 * time.Millisecond, 400 * time.Millisecond},
		shows: func(c figures) bool { return parks(c) && rejoins(c) }, breaks: parksOdd, workers: 1, serves: true,
	},
	{
		name:   "messages that the broker cannot hand over",
		about:  "it closes each connection by which it tries to (541), until an operator has taken them off the queue",
		strike: publishUnspeakable, heal: deleteUnspeakable, absent: !harness.SpeaksAMQP10(),
		hold:  span[time.Duration]{500 * time.Millisecond, time.Second},
		shows: rejoins, breaks: parksNone, workers: 1, serves: true,
	},
	{
		name: "a request that ends workers", about: "the worker is killed whenever it sends that request, and " +
			"started again, until that is parked",
		strike: killAtPoison, heal: healWell,
		shows: func(c figures) bool { return c.replays.kills > 2 }, breaks: parksPoison, senders: span[int]{8, 16},
		workers: 1, serves: true,
		drain: map[string]string{"FALLBACK_MAX_ATTEMPTS": strconv.Itoa(poisonAttempts),
			"FALLBACK_DRAIN_CONCURRENCY": strconv.Itoa(poisonBeside)},
	},
	{
		name: "parked queue full", about: "one in twenty answers is a 422, and the parked queue takes three",
		strike: func(ctx context.Context, r *rig) error {
			if err := r.limitQueue(r.outlet.queues.Parked, 3); err != nil {
				return err
			}
			r.outlet.some(20, harness.Answer{Status: http.StatusUnprocessableEntity, After: primaryTime})
			return poll(ctx, "more to be refused than the parked queue takes",
				func() (bool, error) { return r.outlet.given.Load() > 10, nil })
		},
		heal: func(ctx context.Context, r *rig) error {
			return errors.Join(answersWell(ctx, r), r.limitQueue(r.outlet.queues.Parked, 1_000_000))
		},
		hold: span[time.Duration]{500 * time.Millisecond, time.Second}, shows: parks, breaks: parksRefused, flows: true,
		workers: 1, serves: true,
	},
}

func refuses(c figures) bool { return c.replays.tried > 0 } // answers of the primary that were no 2xx

func nothing(context.Context, *rig) error { return nil }

func healWell(_ context.Context, r *rig) error {
	r.outlet.answer.Store(nil)
	return nil
}

func bySender(which uint64) func(harness.Received) bool {
	return func(r harness.Received) bool { return r.Header.Get(keyHeader) == senderKey(which) }
}

func everything(harness.Received) bool { return true }

// parksNone: nobody's request is to blame.
func parksNone(_ *rig, c figures) (faults []string) {
	if c.parked > 0 {
		faults = append(faults, fmt.Sprintf("%d requests were parked, and none was to blame", c.parked))
	}
	return faults
}

// answerOdd has some answers that go on for ever, by one way or the other.
func answerOdd(_ context.Context, r *rig) error {
	switched := harness.Answer{Status: http.StatusSwitchingProtocols, After: primaryTime,
		Header: map[string]string{"Connection": "upgrade", "Upgrade": "websocket"}}
	endless := harness.Answer{After: primaryTime,
		Header: map[string]string{"X": "y\r\n" + strings.Repeat("a: b\r\n", 1<<20)}}
	r.outlet.given.Store(0)
	answer := func(harness.Received) harness.Answer {
		r.outlet.mu.Lock()
		n := r.outlet.rand.IntN(40)
		r.outlet.mu.Unlock()
		switch n {
		case 0:
			r.outlet.given.Add(1)
			return switched
		case 1:
			r.outlet.given.Add(1)
			return endless
		}
		return harness.Answer{After: primaryTime}
	}
	r.outlet.answer.Store(&answer)
	return nil
}

// closeWay has the way to the primary closed for moments, by one status after the other, between which it is open, and
// leaves it closed by the first.
func closeWay(statuses ...int) func(context.Context, *rig) error {
	return func(ctx context.Context, r *rig) error {
		for i := range r.strikes {
			if err := r.nextReplay(ctx); err != nil {
				return err
			}
			r.outlet.those(everything, harness.Answer{Status: statuses[i%len(statuses)], After: primaryTime})
			time.Sleep(r.within(400 * time.Millisecond))
			if err := openWay(ctx, r); err != nil {
				return err
			}
		}
		r.outlet.those(everything, harness.Answer{Status: statuses[0], After: primaryTime})
		return nil
	}
}

// openWay opens it when it has met two requests at least: by nothing is one that is refused alone, as the first of a
// worker's run may be, to be told from one that is at fault itself.
func openWay(ctx context.Context, r *rig) error { return answersWellAfter(ctx, r, 2) }

// leadBack has the primary answer as a door of Fallback that has taken the request for a new one, with an id of its
// own: that which was sent if id is empty.
func leadBack(r *rig, id string) error {
	r.outlet.given.Store(0)
	answer := func(got harness.Received) harness.Answer {
		r.outlet.given.Add(1)
		said := id
		if said == "" {
			said = got.Header.Get("Fallback-Id")
		}
		return harness.Answer{
			Status: http.StatusAccepted, After: primaryTime,
			Header: map[string]string{"Fallback-Id": said, "Content-Type": "application/json"},
			Body:   fmt.Sprintf(`{"id":%q,"queue":%q}`, said, topology.DefaultQueue),
		}
	}
	r.outlet.answer.Store(&answer)
	return nil
}

// leadOn ends the loop. Until then the worker must have said that it is one, and must have counted nothing as
// delivered that the primary has not taken.
func leadOn(ctx context.Context, r *rig) error {
	defer r.outlet.answer.Store(nil)
	worker := r.outlet.workers[0]
	told, cancel := context.WithTimeout(ctx, allowed(gapLimit))
	defer cancel()
	unready := poll(told, "the worker to say that there is a loop", func() (bool, error) {
		status, body, err := worker.ask("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "loop"), err
	})
	_, counters, err := worker.ask("/metrics")
	if err != nil {
		return err
	}
	_, counted, _ := strings.Cut(counters, "fallback_drain_total{outcome=\"delivered\"} ")
	counted, _, _ = strings.Cut(counted, "\n")
	delivered, err := strconv.Atoi(counted)
	if err != nil {
		return fmt.Errorf("the worker's count: %w", err)
	}
	if _, arrived := r.ledger.progress(); delivered > arrived {
		return errors.Join(unready, fmt.Errorf("the worker counts %d as delivered, and the primary has taken %d",
			delivered, arrived))
	}
	return unready
}

// ask gets a page of the process.
func (s *process) ask(path string) (status int, body string, err error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: harness.Patience}
	answer, err := client.Get("http://" + s.addr + path)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(raw), err
}

// publishOdd publishes messages that the client library cannot read, past the proxies, and writes them down.
func publishOdd(ctx context.Context, r *rig) error {
	ch, done, err := r.channel(ctx)
	if err != nil {
		return err
	}
	defer done()
	for range r.strikes {
		for _, headers := range harness.Unreadables() {
			if err := r.publishOne(ctx, ch, headers); err != nil {
				return err
			}
			time.Sleep(r.within(200 * time.Millisecond))
		}
	}
	return nil
}

// publishOne publishes a message by whose correlation id it is found in the ledger: of its headers nothing may be left.
func (r *rig) publishOne(ctx context.Context, ch *amqp.Channel, headers amqp.Table) error {
	id := r.load.next.Add(1)
	body, message := pool[id%1000:][:100], fmt.Sprintf("odd-%d", id)
	r.ledger.sending(id, checksum("", "", nil, body))
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", topology.DefaultQueue, true, false,
		amqp.Publishing{
			MessageId: message, CorrelationId: strconv.FormatUint(id, 10), Headers: headers, DeliveryMode: amqp.Persistent,
			Body: body,
		})
	if err != nil {
		return err
	}
	if acked, err := confirm.WaitContext(ctx); err != nil || !acked {
		return errors.Join(err, errors.New("the broker did not take a message"))
	}
	r.ledger.published(id, message)
	r.outlet.odd++
	return nil
}

// publishUnspeakable publishes messages that the broker cannot hand over, past the proxies. They are in no ledger.
func publishUnspeakable(ctx context.Context, r *rig) error {
	for range r.strikes {
		id := fmt.Sprintf("unspeakable-%d", len(r.outlet.unspeakable))
		if err := r.vhost.PublishUnspeakable(ctx, id); err != nil {
			return err
		}
		r.outlet.unspeakable[id] = true
		time.Sleep(r.within(200 * time.Millisecond))
	}
	return nil
}

// deleteUnspeakable takes them off the queue, when the worker has said that there are some.
func deleteUnspeakable(ctx context.Context, r *rig) error {
	told, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	unready := poll(told, "the worker to say that there are some", func() (bool, error) {
		status, body, err := r.outlet.workers[0].ask("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "hand-over"), err
	})
	err := r.vhost.DeleteUnspeakable(ctx, r.outlet.unspeakable)
	clear(r.outlet.unspeakable)
	return errors.Join(unready, err)
}

// parksOdd: what cannot be read is parked, and nothing else is.
func parksOdd(_ *rig, c figures) (faults []string) {
	if c.parked != c.replays.odd {
		faults = append(faults, fmt.Sprintf("%d were parked, and %d cannot be read", c.parked, c.replays.odd))
	}
	return faults
}

// parksOddAtOnce: and that costs the worker no connection but the one that it moves with, and nobody a second replay.
func parksOddAtOnce(r *rig, c figures) []string {
	faults := parksOdd(r, c)
	if c.replays.connections > 1 {
		faults = append(faults, fmt.Sprintf("%d connections for messages that cannot be read", c.replays.connections))
	}
	if c.duplicated > 0 {
		faults = append(faults, fmt.Sprintf("%d were replayed twice beside messages that cannot be read", c.duplicated))
	}
	return faults
}

const (
	// poisonAttempts is how often a request that ends workers may be tried alone, poisonBeside how many may be in
	// flight beside it (and as many again that are overdue), and poisonReturns how often it may come back before it is
	// told apart.
	poisonAttempts, poisonBeside, poisonReturns = 3, 8, 3
	// mostKills is when it is given up that it will be parked.
	mostKills = 2 * (poisonAttempts + poisonReturns)
)

// poisoned is a worker that has sent the request: until it is dead, it may see no answer, nor the end of its
// connection.
type poisoned struct {
	id   string
	dead chan struct{} // closed then
}

// killAtPoison chooses a request that comes to the primary beside others, and kills the worker whenever it comes,
// until it is parked.
func killAtPoison(ctx context.Context, r *rig) error {
	o, w := r.outlet, r.outlet.workers[0]
	ch, done, err := r.channel(ctx)
	if err != nil {
		return err
	}
	defer done()
	arrived, over := make(chan poisoned), make(chan struct{})
	defer close(over)
	var poison atomic.Pointer[string]
	answer := func(got harness.Received) harness.Answer {
		id := got.Header.Get(ledgerID)
		if o.primary.Pending() > 3 { // else nobody is beside it
			poison.CompareAndSwap(nil, &id)
		}
		if p := poison.Load(); p == nil || *p != id {
			return harness.Answer{After: primaryTime}
		}
		this := poisoned{id, make(chan struct{})}
		select {
		case arrived <- this:
		case <-over:
			close(this.dead)
		}
		return harness.Answer{Status: http.StatusInternalServerError, Hang: true, Until: this.dead}
	}
	o.answer.Store(&answer)
	for kills := 0; kills < mostKills; {
		select {
		case this := <-arrived:
			w.kill()
			close(this.dead)
			o.kills, kills = o.kills+1, kills+1
			if o.poison, err = strconv.ParseUint(this.id, 10, 64); err != nil {
				return err
			}
			if err := w.start(); err != nil {
				return err
			}
		case <-time.After(100 * time.Millisecond):
			if q, err := ch.QueueDeclarePassive(o.queues.Parked, true, false, false, false, nil); err != nil ||
				q.Messages > 0 {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// parksPoison: what ends workers is parked, and its neighbours are not; those that were beside it come twice, and no
// others.
func parksPoison(r *rig, c figures) (faults []string) {
	others := c.parked
	if r.ledger.isParked(r.outlet.poison) {
		others--
	} else {
		faults = append(faults, fmt.Sprintf("the request that ended %d workers is not parked", c.replays.kills))
	}
	if others > 0 {
		faults = append(faults, fmt.Sprintf("%d of its neighbours are parked", others))
	}
	if most := poisonReturns * 2 * poisonBeside; c.duplicated > most {
		faults = append(faults, fmt.Sprintf("%d were replayed twice, want %d at most", c.duplicated, most))
	}
	return faults
}

// parksRefused: what was refused is parked in the end, and was not sent again.
func parksRefused(r *rig, c figures) (faults []string) {
	if n := int(r.outlet.given.Load()); c.parked != n {
		faults = append(faults, fmt.Sprintf("%d were parked, and %d refused", c.parked, n))
	}
	if c.replays.again > 0 {
		faults = append(faults, fmt.Sprintf("%d were sent again, and had been refused", c.replays.again))
	}
	return faults
}
