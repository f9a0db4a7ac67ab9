//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/app"
	"fallback/functions/drain"
	"fallback/functions/rabbit"
	"fallback/functions/topology"
	"fallback/test/corpus"
	"fallback/test/harness"
)

// once runs a drain once, for a time that none of the tests should need.
func once(t *testing.T, d *app.Drain) drain.Report {
	t.Helper()
	return onceFor(t, d, harness.Patience)
}

func onceFor(t *testing.T, d *app.Drain, window time.Duration) drain.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), window+20*time.Second)
	defer cancel()
	return d.Once(ctx, drain.Budget{Time: window})
}

// enqueue puts n requests on the queue through the server, with bodies "0", "1" and so on, to the path.
func enqueue(t *testing.T, server *harness.Server, n int, path string) {
	t.Helper()
	for i := range n {
		checkAccepted(t, send(t, "POST", server.URL+"/fallback"+path, fmt.Sprint(i)))
	}
}

// checkOnce holds that the primary has got each of the bodies "0" to "n-1" to the path, and none of them twice.
func checkOnce(t *testing.T, primary *harness.Primary, n int, path string) {
	t.Helper()
	times := map[string]int{}
	for _, r := range primary.Got() {
		if r.Target == path {
			times[string(r.Body)]++
		}
	}
	for i := range n {
		if got := times[fmt.Sprint(i)]; got != 1 {
			t.Errorf("%s, request %d: the primary got it %d times, want once", path, i, got)
		}
	}
	if len(times) > n {
		t.Errorf("%s: the primary got %d different requests, want %d", path, len(times), n)
	}
}

// takeOne takes one message off a queue, as the admin.
func takeOne(t *testing.T, vhost *harness.VHost, queue string) amqp.Delivery {
	t.Helper()
	d, ok, err := vhost.Channel(t, topology.Admin).Get(queue, true)
	if err != nil || !ok {
		t.Fatalf("queue %s: got %v, %v", queue, ok, err)
	}
	return d
}

// TestLeftUnderLoad holds that a drain which finds its queue empty begins at once when requests come, however fast:
// their number never stays the same, so whoever asks until it does asks thirty times.
func TestLeftUnderLoad(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	counted, err := harness.Far(broker.AMQP, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(counted.Close)
	source := rabbit.NewSource(rabbit.SourceOptions{URL: strings.Replace(vhost.URL(topology.Drainer), broker.AMQP,
		counted.Addr, 1), Queue: topology.DefaultQueue})
	t.Cleanup(source.Close)
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	if waiting, err := source.Waiting(ctx); waiting != 0 || err != nil {
		t.Fatalf("got %d, %v; want an empty queue", waiting, err)
	}
	publisher := vhost.Channel(t, topology.Publisher)
	var work sync.WaitGroup
	work.Go(func() {
		for ctx.Err() == nil {
			if err := publisher.PublishWithContext(ctx, "", topology.DefaultQueue, false, false,
				amqp.Publishing{}); err != nil {
				return
			}
			time.Sleep(15 * time.Millisecond)
		}
	})
	defer work.Wait()
	defer cancel()
	admin := vhost.Channel(t, topology.Admin)
	const perLook = 3          // round trips: a channel's begin, the question, the channel's end
	for seen := 0; seen < 3; { // looks that found the queue empty first, and then not
		if _, err := admin.QueuePurge(topology.DefaultQueue, false); err != nil {
			t.Fatal(err)
		}
		before := counted.RoundTrips()
		left, err := source.Left(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		trips := counted.RoundTrips() - before
		if left > 0 && trips > perLook {
			seen++
		}
		if trips > 2*perLook+1 { // a heartbeat may be among them
			t.Errorf("it took %d round trips to see that there is a request, want two looks of %d", trips, perLook)
		}
	}
}

// TestDrainCorpus holds that the primary gets, byte for byte, what the client sent, and nothing more than our own
// headers.
func TestDrainCorpus(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, nil)
	d, _ := vhost.Drain(t, primary, harness.Settings{"FALLBACK_DRAIN_CONCURRENCY": "1"})
	all := corpus.All()
	for _, in := range all {
		if answer := sendRaw(t, server.Addr, in.Raw); answer.StatusCode != http.StatusAccepted {
			t.Fatalf("%s: %s", in.Name, answer.Status)
		}
	}
	if r := once(t, d); r.Delivered != len(all) || r.Waiting != 0 {
		t.Fatalf("got %+v, want %d delivered", r, len(all))
	}
	for i, got := range primary.Got() {
		want := all[i] // one at a time, so they come in order
		t.Run(want.Name, func(t *testing.T) {
			parsed, err := corpus.Parse(want.Name, got.Raw)
			if err != nil {
				t.Fatalf("%v in\n%q", err, got.Raw)
			}
			parsed.Header = withoutOurs(t, parsed.Header, want)
			checkSameRequest(t, parsed, want)
		})
	}
}

// countsRequeues says that the broker counts what a consumer requeues as come back, as RabbitMQ did before 4.3.
func countsRequeues() bool {
	version := os.Getenv(harness.VersionVariable)
	return version != "" && version != "4.3"
}

// withoutOurs takes off the headers of a replay that the client did not send, and holds that they are there.
func withoutOurs(t *testing.T, fields []corpus.Field, want corpus.Request) (rest []corpus.Field) {
	t.Helper()
	sent, ours := byName(want.Header), map[string]bool{}
	for _, name := range []string{
		"Idempotency-Key", "Fallback-Id", "Fallback-Attempt", "Fallback-Received-At",
		"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Prefix",
	} {
		if len(sent[name]) == 0 {
			ours[name] = true
		}
	}
	if countsRequeues() { // it may be there, for what the drain itself has requeued
		const name = "Fallback-Redelivered"
		fields = slices.DeleteFunc(slices.Clone(fields), func(f corpus.Field) bool {
			return http.CanonicalHeaderKey(f.Name) == name && len(sent[name]) == 0
		})
	}
	for _, f := range fields {
		name := http.CanonicalHeaderKey(f.Name)
		if !ours[name] {
			rest = append(rest, f)
			continue
		}
		delete(ours, name)
		ours[name] = true
		if f.Value == "" {
			t.Errorf("%s is empty", name)
		}
	}
	got := byName(fields)
	for name := range ours {
		if len(got[name]) != 1 {
			t.Errorf("%s: got %q, want one", name, got[name])
		}
	}
	return rest
}

// TestDrainVerdicts holds where each answer of the primary leads a request.
func TestDrainVerdicts(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, func(r harness.Received) harness.Answer {
		switch r.Target {
		case "/fails":
			return harness.Answer{Status: 500}
		case "/refused":
			return harness.Answer{Status: 422}
		case "/hangs":
			return harness.Answer{After: 10 * time.Second}
		}
		return harness.Answer{Status: 201}
	})
	names, err := topology.Of(topology.DefaultQueue)
	if err != nil {
		t.Fatal(err)
	}
	// so that they are still there when they are looked for
	setPolicy(t, vhost, names.Retries[0].Name, "message-ttl", 600_000)
	d, _ := vhost.Drain(t, primary, harness.Settings{"FALLBACK_TARGET_TIMEOUT": "3s"})
	ids := map[string]string{}
	for _, path := range []string{"/fine", "/fails", "/refused", "/hangs"} {
		r := send(t, "POST", server.URL+"/fallback"+path, "the body")
		checkAccepted(t, r)
		ids[path] = r.id()
	}
	publish := func(m amqp.Publishing) {
		t.Helper()
		if err := vhost.Channel(t, topology.Admin).Publish("", topology.DefaultQueue, true, false, m); err != nil {
			t.Fatal(err)
		}
	}
	publish(amqp.Publishing{ContentType: "text/plain", Body: []byte("A request has been sent via fallback API")})
	publish(amqp.Publishing{Headers: amqp.Table{"fallback": "{not JSON"}, MessageId: "broken", Body: []byte("x")})
	harness.Eventually(t, "six messages", func() bool { return vhost.Count(t, topology.DefaultQueue) == 6 })

	report := once(t, d)
	if report.Delivered != 2 || report.Retried != 2 || report.Parked != 2 || report.Waiting != 0 || report.Held != 0 {
		t.Errorf("got %+v, want 2 delivered, 2 retried, 2 parked", report)
	}
	for range 2 {
		retried := takeOne(t, vhost, names.Retries[0].Name)
		if retried.MessageId != ids["/fails"] && retried.MessageId != ids["/hangs"] ||
			retried.Headers["fallback-attempt"] != int64(1) || string(retried.Body) != "the body" {
			t.Errorf("on the retry queue: got %s %v %q", retried.MessageId, retried.Headers["fallback-attempt"],
				retried.Body)
		}
	}
	parked := map[string]amqp.Delivery{}
	for range 2 {
		m := takeOne(t, vhost, names.Parked)
		parked[m.MessageId] = m
	}
	refused := parked[ids["/refused"]]
	if refused.Headers["fallback-reason"] != "422 Unprocessable Entity" ||
		refused.Headers["fallback-status"] != int64(422) ||
		refused.Headers["fallback-attempt"] != int64(1) || refused.Headers["fallback-parked-at"] == nil ||
		string(refused.Body) != "the body" {
		t.Errorf("the refused one is parked with %v", refused.Headers)
	}
	if broken := parked["broken"]; !strings.Contains(fmt.Sprint(broken.Headers["fallback-reason"]), "cannot be read") ||
		string(broken.Body) != "x" {
		t.Errorf("the broken one is parked with %v", broken.Headers)
	}
	for _, r := range primary.Got() {
		if r.Target == "/" && (r.Method != "POST" || string(r.Body) != "A request has been sent via fallback API" ||
			r.Header.Get("Content-Type") != "text/plain" || r.Header.Get("X-Forwarded-Proto") != "") {
			t.Errorf("the article's message came as %s", r.Raw)
		}
	}
}

// TestDrainAttempts holds that a request which fails by itself comes back from the retry queues, is counted, and is
// parked after the last attempt. Its retry queue here is the shortest only, and shortened.
func TestDrainAttempts(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	names, err := topology.Of(topology.DefaultQueue)
	if err != nil {
		t.Fatal(err)
	}
	for _, retry := range names.Retries {
		setPolicy(t, vhost, retry.Name, "message-ttl", 100)
	}
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, func(harness.Received) harness.Answer { return harness.Answer{Status: 500} })
	d, _ := vhost.Drain(t, primary, harness.Settings{"FALLBACK_MAX_ATTEMPTS": "4"})
	enqueue(t, server, 1, "/fails")
	harness.Eventually(t, "it to be parked", func() bool {
		once(t, d)
		return vhost.Count(t, names.Parked) == 1
	})
	var attempts []string
	for _, r := range primary.Got() {
		attempts = append(attempts, r.Header.Get("Fallback-Attempt"))
	}
	if got := strings.Join(attempts, " "); got != "1 2 3 4" {
		t.Errorf("attempts: got %s", got)
	}
	parked := takeOne(t, vhost, names.Parked)
	if reason := fmt.Sprint(parked.Headers["fallback-reason"]); !strings.Contains(reason, "given up after 4 attempts") {
		t.Errorf("reason: got %q", reason)
	}
	for name := range parked.Headers {
		if strings.HasPrefix(name, "x-") && (name != "x-delivery-count" || delivered(parked)) {
			t.Errorf("the broker's own header %s was published again", name)
		}
	}
}

// delivered says whether the broker has counted a delivery of the message; 3.10 counts from 0, the others say nothing.
func delivered(m amqp.Delivery) bool {
	count := m.Headers["x-delivery-count"]
	return count != nil && fmt.Sprint(count) != "0"
}

// setPolicy changes one key of a queue's policy.
func setPolicy(t *testing.T, vhost *harness.VHost, queue, key string, value any) {
	t.Helper()
	path := "/api/policies/" + url.PathEscape(vhost.Name) + "/" + queue
	var policy map[string]any
	if err := vhost.Call(http.MethodGet, path, nil, &policy); err != nil {
		t.Fatal(err)
	}
	policy["definition"].(map[string]any)[key] = value
	if err := vhost.Call(http.MethodPut, path, policy, nil); err != nil {
		t.Fatal(err)
	}
}

// TestDrainPrimaryDown holds that nothing is taken off the queue while the primary is down, so that no delivery counter
// moves, and everything is delivered when it is back, in order.
func TestDrainPrimaryDown(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, nil)
	primary.Down()
	d, log := vhost.Drain(t, primary, harness.Settings{"FALLBACK_DRAIN_CONCURRENCY": "1"})
	enqueue(t, server, 20, "/orders")
	for range 30 { // more than RabbitMQ's own delivery limit
		if r := onceFor(t, d, 50*time.Millisecond); r.Delivered+r.Returned+r.Parked+r.Retried != 0 || r.Waiting != 20 {
			t.Fatalf("while it is down: got %+v", r)
		}
	}
	ch := vhost.Channel(t, topology.Admin)
	first, ok, err := ch.Get(topology.DefaultQueue, false)
	if err != nil || !ok || first.Redelivered || delivered(first) {
		t.Fatalf("the first message: %v %v, redelivered %v, %v", ok, err, first.Redelivered, first.Headers)
	}
	if err := first.Nack(false, true); err != nil {
		t.Fatal(err)
	}
	done := make(chan drain.Report)
	go func() { done <- once(t, d) }()
	time.Sleep(300 * time.Millisecond)
	primary.Up(t)
	back := harness.StartWatch()
	r := <-done
	if r.Delivered != 20 || r.Waiting != 0 {
		t.Errorf("when it is back: got %+v", r)
	}
	back.Hold(t, 5*time.Second, "the way back of the primary") // it is asked at least every two seconds
	checkOnce(t, primary, 20, "/orders")
	for i, got := range primary.Got() {
		if string(got.Body) != fmt.Sprint(i) {
			t.Errorf("number %d is %s", i, got.Body)
		}
	}
	if n := len(linesOf(log, `msg="the primary is down"`)) + len(linesOf(log, "msg=paused")); n == 0 || n > 35 {
		t.Errorf("%d lines of the log say so", n)
	}
}

// TestDrainFlapping holds that a primary which comes and goes gets everything, and that nothing is parked for it.
func TestDrainFlapping(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, harness.Settings{"FALLBACK_TIMEOUT": "1m"}) // they are sent all at once
	primary := harness.NewPrimary(t, func(harness.Received) harness.Answer { return harness.Answer{After: 50 * time.Millisecond} })
	d, _ := vhost.Drain(t, primary, nil)
	const n = 1000
	var work sync.WaitGroup
	for i := range n {
		work.Go(func() { checkAccepted(t, send(t, "POST", server.URL+"/fallback/orders", fmt.Sprint(i))) })
	}
	work.Wait()
	end := make(chan struct{})
	var flapping sync.WaitGroup
	flapping.Go(func() {
		for {
			select {
			case <-time.After(2 * time.Second):
				primary.Down()
				time.Sleep(2 * time.Second)
				primary.Up(t)
			case <-end:
				return
			}
		}
	})
	r := onceFor(t, d, 3*time.Minute)
	close(end)
	flapping.Wait()
	if r.Waiting != 0 || r.Parked != 0 || r.Pauses == 0 {
		t.Errorf("got %+v", r)
	}
	names, err := topology.Of(topology.DefaultQueue)
	if err != nil {
		t.Fatal(err)
	}
	again := 0 // to be sent: on a retry queue, or back from it
	harness.Eventually(t, "each to be accounted for", func() bool {
		again = vhost.Count(t, topology.DefaultQueue)
		for _, retry := range names.Retries {
			again += vhost.Count(t, retry.Name)
		}
		return r.Delivered+again == n
	})
	got := map[string]bool{}
	for _, one := range primary.Got() {
		got[string(one.Body)] = true
	}
	if len(got)+again < n { // some came, and their answer did not
		t.Errorf("the primary has got %d requests, %d are to be tried again, want %d", len(got), again, n)
	}
}

// TestDrainPoison holds that one request which the primary is never up to does not stall the others, and is not lost.
func TestDrainPoison(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, func(r harness.Received) harness.Answer {
		if r.Target == "/poison" {
			return harness.Answer{Status: 503}
		}
		return harness.Answer{}
	})
	d, _ := vhost.Drain(t, primary, nil)
	enqueue(t, server, 20, "/before")
	enqueue(t, server, 1, "/poison")
	if err := vhost.Channel(t, topology.Admin).Publish("", topology.DefaultQueue, true, false, amqp.Publishing{
		Headers: amqp.Table{"fallback": `{"v":1,"method":"POST","target":"/poison","header":{}}`},
		Body:    []byte("without an id"),
	}); err != nil {
		t.Fatal(err)
	}
	enqueue(t, server, 20, "/after")
	run := harness.StartWatch()
	r := onceFor(t, d, 40*time.Second)
	if r.Delivered != 40 || r.Aside+r.Retried != 2 || r.Parked != 0 || r.Waiting != 0 {
		t.Errorf("got %+v, want 40 delivered and 2 to be tried again", r)
	}
	checkOnce(t, primary, 20, "/before")
	checkOnce(t, primary, 20, "/after")
	run.Hold(t, 10*time.Second, "a run with one request that the primary is never up to")
}

// TestDrainNoRoom holds that a request which should be parked stays where it is when there is no room for it, that the
// drain says so, and that the others go on.
func TestDrainNoRoom(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	names, err := topology.Of(topology.DefaultQueue)
	if err != nil {
		t.Fatal(err)
	}
	limit := func(most int) {
		setPolicy(t, vhost, names.Parked, "max-length", most)
		for _, retry := range names.Retries {
			setPolicy(t, vhost, retry.Name, "max-length", most)
		}
	}
	limit(0)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, func(r harness.Received) harness.Answer {
		if r.Target == "/refused" {
			return harness.Answer{Status: 422}
		}
		return harness.Answer{}
	})
	d, log := vhost.Drain(t, primary, nil)
	enqueue(t, server, 3, "/refused")
	enqueue(t, server, 30, "/fine")
	enough := func() bool { // a quorum queue may go a little over its limit
		r := once(t, d)
		return r.Held > 0
	}
	harness.Eventually(t, "a request that nobody would have", func() bool {
		if enough() {
			return true
		}
		enqueue(t, server, 3, "/refused")
		return false
	})
	checkOnce(t, primary, 30, "/fine")
	if !strings.Contains(log.String(), "a request stays where it is") {
		t.Error("the log does not say so")
	}
	left := vhost.Count(t, topology.DefaultQueue)
	if left == 0 {
		t.Fatal("nothing stayed on the queue")
	}
	parked := vhost.Count(t, names.Parked)
	limit(1000)
	harness.Eventually(t, "them to be parked", func() bool {
		once(t, d)
		return vhost.Count(t, topology.DefaultQueue) == 0 && vhost.Count(t, names.Parked) == parked+left
	})
}

// TestDrainUnsendable holds that a message of another program which is no request of HTTP is parked, and why, while the
// others go on.
func TestDrainUnsendable(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, nil)
	d, _ := vhost.Drain(t, primary, nil)
	foreign := []string{
		`{"v":1,"method":"BAD METHOD","target":"/"}`, `{"v":1,"method":"POST","target":"orders"}`,
		`{"v":1,"target":"/"}`,
		`{"v":1,"method":"POST","target":"/","header":{"X-\u0000":["a"]}}`,
		`{"v":1,"method":"POST","target":"/","header":{"X-Tag":["a\r\nX-Forged: b"]}}`,
	}
	channel := vhost.Channel(t, topology.Admin)
	for _, metadata := range append(foreign, `{"v":1,"method":"POST","target":"/foreign","header":{"content-type":["text/x-mine"]}}`) {
		if err := channel.Publish("", topology.DefaultQueue, true, false,
			amqp.Publishing{Headers: amqp.Table{"fallback": metadata}, Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	enqueue(t, server, 5, "/orders")
	harness.Eventually(t, "them to be counted",
		func() bool { return vhost.Count(t, topology.DefaultQueue) == 6+len(foreign) })
	if r := once(t, d); r.Parked != len(foreign) || r.Delivered != 6 || r.Pauses != 0 || r.Waiting != 0 {
		t.Errorf("got %+v", r)
	}
	checkOnce(t, primary, 5, "/orders")
	for range foreign {
		if reason := fmt.Sprint(takeOne(t, vhost, parkedQueue).Headers["fallback-reason"]); !strings.HasPrefix(reason,
			"it cannot be sent: ") {
			t.Errorf("parked because of %q", reason)
		}
	}
	for _, r := range primary.Got() {
		if r.Target == "/foreign" && strings.Join(r.Header["Content-Type"], ",") != "text/x-mine" {
			t.Errorf("its Content-Type is %q", r.Header["Content-Type"])
		}
	}
}

// TestDrainTwoWorkers holds that two workers share the queue, and nothing is delivered twice.
func TestDrainTwoWorkers(t *testing.T) {
	t.Parallel()
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	// It keeps the first requests until both have come with one.
	var asked sync.Map
	both := make(chan struct{})
	release := sync.OnceFunc(func() { close(both) })
	primary := harness.NewPrimary(t, func(r harness.Received) harness.Answer {
		asked.Store(r.Host, true)
		workers := 0
		asked.Range(func(any, any) bool { workers++; return true })
		if workers == 2 {
			release()
		}
		return harness.Answer{Until: both}
	})
	first, _ := vhost.Drain(t, primary, nil)
	second, _ := vhost.Drain(t, primary, harness.Settings{"FALLBACK_TARGET_URL": strings.Replace(primary.URL,
		"127.0.0.1", "localhost", 1)})
	const n = 600
	enqueue(t, server, n, "/orders")
	var delivered atomic.Int64
	var work sync.WaitGroup
	for _, d := range []*app.Drain{first, second} {
		work.Go(func() {
			r := once(t, d)
			if r.Delivered == 0 {
				t.Errorf("one worker has done nothing: %+v", r)
			}
			delivered.Add(int64(r.Delivered))
		})
	}
	work.Wait()
	if delivered.Load() != n {
		t.Errorf("delivered %d, want %d", delivered.Load(), n)
	}
	checkOnce(t, primary, n, "/orders")
}

// TestDrainBrokerRestart holds that nothing is lost when the broker restarts in the middle, and that what was in hand
// then comes again under the same key.
func TestDrainBrokerRestart(t *testing.T) {
	t.Parallel()
	own := ownBroker(t)
	vhost := own.VHost(t)
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, func(harness.Received) harness.Answer { return harness.Answer{After: 20 * time.Millisecond} })
	d, _ := vhost.Drain(t, primary, nil)
	const n = 500
	enqueue(t, server, n, "/orders")
	done := make(chan drain.Report)
	go func() { done <- once(t, d) }()
	harness.Eventually(t, "the drain to be under way", func() bool { return len(primary.Got()) > 50 })
	own.Docker(t, "kill")
	own.Docker(t, "start")
	r := <-done
	if r.Waiting != 0 || r.Parked+r.Retried+r.Aside != 0 { // what came back for the restart is not set aside for that
		t.Errorf("got %+v", r)
	}
	keys := map[string]string{}
	for _, got := range primary.Got() {
		key := got.Header.Get("Idempotency-Key")
		if before, ok := keys[string(got.Body)]; ok && before != key {
			t.Errorf("request %s came with the keys %s and %s", got.Body, before, key)
		}
		keys[string(got.Body)] = key
	}
	if len(keys) != n {
		t.Errorf("the primary has got %d requests, want %d", len(keys), n)
	}
	t.Logf("%d requests, %d of them twice: %+v", n, len(primary.Got())-n, r)
}
