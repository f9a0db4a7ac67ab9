//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// series are those of a scrape, by name and labels as they stand there.
type series map[string]float64

func scrape(t *testing.T, base string) series {
	t.Helper()
	r := send(t, "GET", base+"/metrics", "")
	if r.status != 200 {
		t.Fatalf("%s/metrics: got %s", base, r)
	}
	found := series{}
	for line := range strings.Lines(string(r.body)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		found[line[:at]] = value
	}
	return found
}

// sum is that of the series of a name whose labels hold the text.
func (s series) sum(name, label string) (sum float64) {
	for key, value := range s {
		if (key == name || strings.HasPrefix(key, name+"{")) && strings.Contains(key, label) {
			sum += value
		}
	}
	return sum
}

// ours are the names of our own series, without those parts of a histogram.
func (s series) ours() map[string]bool {
	names := map[string]bool{}
	for key := range s {
		if name, _, _ := strings.Cut(key, "{"); strings.HasPrefix(name, "fallback_") {
			names[regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")] = true
		}
	}
	return names
}

// check compares some of the series.
func (s series) check(t *testing.T, want series) {
	t.Helper()
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got, ok := s[key]; !ok || got != want[key] {
			t.Errorf("%s: got %v (%v), want %v", key, got, ok, want[key])
		}
	}
}

// TestMetrics holds that the counters of a server and two workers add up, exactly, with what the primary has seen and
// the queues hold: what was accepted is delivered, expired, or on a queue; and what is missing then is what was
// discarded.
func TestMetrics(t *testing.T) {
	t.Parallel()
	// fewer bad answers in a row than make a pause
	const expired, delivered, parked, retried, left, discarded = 4, 12, 3, 2, 2, 2
	fallback := build(t)
	vhost := broker.VHost(t)
	server := vhost.Serve(t, harness.Settings{"FALLBACK_MAX_BODY_BYTES": "100",
		"FALLBACK_ACCEPT_REPLAYS": "whsec_YQ=="})
	server.WaitReady(t)
	primary := harness.NewPrimary(t, func(r harness.Received) harness.Answer {
		switch r.Target {
		case "/delivered":
			return harness.Answer{}
		case "/parked":
			return harness.Answer{Status: 422}
		case "/retried":
			return harness.Answer{Status: 500}
		default:
			return harness.Answer{Status: 429, RetryAfter: 3600}
		}
	})
	worker := func(more harness.Settings) (base string) {
		address := harness.FreeAddress()
		env := harness.Settings{
			"AMQP_SERVER_URL":         vhost.URL(topology.Drainer),
			"RABBITMQ_MANAGEMENT_URL": vhost.ManagementURL(topology.Monitor),
			"FALLBACK_TARGET_URL":     primary.URL, "FALLBACK_DRAIN_SCHEDULE": "24h", "FALLBACK_DRAIN_WINDOW": "15s",
			"FALLBACK_DRAIN_ADDR": address,
		}
		maps.Copy(env, more)
		fallback.drain(t, env)
		return "http://" + address
	}

	// Some are too old when the first worker comes, whose one run drops them.
	enqueue(t, server, expired, "/expired")
	time.Sleep(1100 * time.Millisecond)
	first := worker(harness.Settings{"FALLBACK_MAX_AGE": "1s", "FALLBACK_STALE": "drop"})
	const lastRun = "fallback_drain_last_run_timestamp_seconds"
	ran := func(base string) func() bool {
		return func() bool {
			r, err := exchange("GET", base+"/metrics", "")
			return err == nil && strings.Contains(string(r.body), "\n"+lastRun+" ")
		}
	}
	harness.Eventually(t, "the first worker's run", ran(first))

	// The second worker's run meets every other answer, and ends with requests left.
	enqueue(t, server, delivered, "/delivered")
	enqueue(t, server, parked, "/parked")
	enqueue(t, server, retried, "/retried")
	enqueue(t, server, left, "/left")
	for range 3 {
		checkProblem(t, send(t, "GET", server.URL+"/fallback/orders", ""), 503, "method-not-queued")
	}
	checkProblem(t, send(t, "POST", server.URL+"/fallback/orders", strings.Repeat("x", 101)), 413, "body-too-large")
	checkProblem(t, send(t, "POST", server.URL+"/elsewhere", ""), 404, "not-found")
	second := worker(nil)
	harness.Eventually(t, "the second worker's run", ran(second))

	answered := map[string]float64{} // by the primary: the witness
	for _, r := range primary.Got() {
		answered[r.Target]++
	}
	const accepted = expired + delivered + parked + retried + left
	s := scrape(t, server.URL)
	s.check(t, series{
		`fallback_requests_total{outcome="accepted"}`:          accepted,
		`fallback_requests_total{outcome="method-not-queued"}`: 3,
		`fallback_requests_total{outcome="body-too-large"}`:    1,
		`fallback_requests_total{outcome="not-found"}`:         1,
		`fallback_request_duration_seconds_count`:              accepted + 5,
		`fallback_requests_in_hand`:                            0,
		`fallback_bytes_in_hand`:                               0,
		`fallback_broker_connected`:                            1,
		`fallback_broker_blocked`:                              0,
	})
	if all := s.sum("fallback_requests_total", ""); all != accepted+5 {
		t.Errorf("%v requests are counted, want %d", all, accepted+5)
	}
	scrape(t, first).check(t, series{
		`fallback_drain_total{outcome="expired"}`: expired, `fallback_drain_total{outcome="delivered"}`: 0,
		`fallback_target_up`: 1,
	})
	w := scrape(t, second)
	w.check(t, series{
		`fallback_drain_total{outcome="delivered"}`: answered["/delivered"],
		`fallback_drain_total{outcome="parked"}`:    answered["/parked"],
		`fallback_drain_total{outcome="retried"}`:   answered["/retried"], `fallback_drain_total{outcome="expired"}`: 0,
		`fallback_drain_total{outcome="aside"}`: left, `fallback_drain_total{outcome="held"}`: 0,
		`fallback_drain_pauses_total`: 0, `fallback_target_up`: 1,
	})
	if answered["/delivered"] != delivered || answered["/parked"] != parked || answered["/retried"] != retried {
		t.Errorf("the primary has answered %v", answered)
	}
	if ago := time.Since(time.Unix(int64(w[lastRun]), 0)); ago < -2*time.Second || ago > harness.Patience {
		t.Errorf("the last run ended %s ago", ago)
	}

	// missing is the README's sum.
	missing := func() float64 {
		one, two := scrape(t, first), scrape(t, second)
		gone := 0.0
		for _, outcome := range []string{"delivered", "expired"} {
			gone += one.sum("fallback_drain_total", `"`+outcome+`"`) + two.sum("fallback_drain_total", `"`+outcome+`"`)
		}
		return scrape(t, server.URL).sum("fallback_requests_total",
			`"accepted"`) - gone - two.sum("fallback_queue_messages", "")
	}
	const inQueue = `fallback_queue_messages{queue="` + topology.DefaultQueue
	harness.Eventually(t, "the broker's statistics", func() bool {
		w = scrape(t, second)
		return w["fallback_queues_up"] == 1 && w[inQueue+`.parked"}`] == parked &&
			w.sum("fallback_queue_messages", "") == parked+retried+left
	})
	if got := missing(); got != 0 {
		t.Errorf("the sum is %v, want 0", got)
	}
	if got := len(regexp.MustCompile(regexp.QuoteMeta(inQueue)).FindAllString(fmt.Sprint(w), -1)); got != 5 {
		t.Errorf("%d queues are shown, want 5", got)
	}
	var rows []peekLine
	asDrainer := harness.Settings{"AMQP_SERVER_URL": vhost.URL(topology.Drainer)}
	if err := json.Unmarshal([]byte(fallback.run(t, asDrainer, "peek", "parked", "--json").stdout),
		&rows); err != nil || len(rows) != parked {
		t.Fatalf("%d are parked: %v", len(rows), err)
	}
	o := fallback.run(t, asDrainer, "discard", "--yes", "--id", rows[0].ID, "--id", rows[1].ID)
	o.check(t, 0, []string{fmt.Sprintf("discarded %d;", discarded)}, nil)
	harness.Eventually(t, "what was discarded to be missing, and nothing else",
		func() bool { return missing() == discarded })

	// The README's table names what is there, and all of it.
	shown := scrape(t, server.URL).ours()
	maps.Copy(shown, w.ours())
	named := map[string]bool{}
	for _, name := range regexp.MustCompile("`(fallback_[a-z_]+)[`{]").FindAllStringSubmatch(readme(t), -1) {
		named[name[1]] = true
	}
	if !maps.Equal(shown, named) {
		t.Errorf("shown are %v,\nthe README names %v", slices.Sorted(maps.Keys(shown)), slices.Sorted(maps.Keys(named)))
	}
}

// TestMetricsWithoutManagement holds that depths which cannot be read are not shown, and that this is.
func TestMetricsWithoutManagement(t *testing.T) {
	t.Parallel()
	fallback := build(t)
	vhost := broker.VHost(t)
	for name, row := range map[string]struct {
		url  string
		want []string
	}{
		"nobody there":     {"http://u:tell-no-one@" + nowhere(t), []string{"fallback_queues_up"}},
		"a wrong password": {"http://" + monitor + ":tell-no-one@" + broker.Management, []string{"fallback_queues_up"}},
		"not set":          {"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := harness.FreeAddress()
			w := fallback.drain(t, harness.Settings{
				"AMQP_SERVER_URL": vhost.URL(topology.Drainer), "RABBITMQ_MANAGEMENT_URL": row.url,
				"FALLBACK_DRAIN_ADDR": address,
			})
			harness.Eventually(t, "it to listen", func() bool {
				r, err := exchange("GET", "http://"+address+"/livez", "")
				return err == nil && r.status == 200
			})
			s := scrape(t, "http://"+address)
			var got []string
			for key, value := range s {
				if strings.HasPrefix(key, "fallback_queue") && value == 0 {
					got = append(got, key)
				}
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("got %q, want %q", got, row.want)
			}
			if strings.Contains(w.log.String(), "tell-no-one") {
				t.Error("the log shows the password")
			}
		})
	}
}

// statsLine is a line of `fallback queues --json` with the management API.
type statsLine struct {
	queueLine
	Type    string   `json:"type"`
	State   string   `json:"state"`
	Unacked *int     `json:"unacked"`
	In      *float64 `json:"in_per_second"`
	Out     *float64 `json:"out_per_second"`
}

// TestQueuesWithManagement holds that with the monitor's URL `fallback queues` shows every queue to every user: what is
// ready and in hand, and what comes and goes while requests do.
func TestQueuesWithManagement(t *testing.T) {
	t.Parallel()
	fallback := build(t)
	vhost := broker.VHost(t)
	server := vhost.Serve(t, nil)
	env := harness.Settings{"AMQP_SERVER_URL": vhost.URL(publisher),
		"RABBITMQ_MANAGEMENT_URL": vhost.ManagementURL(monitor)}
	lines := func(t *testing.T, env harness.Settings) (rows []statsLine) {
		t.Helper()
		o := fallback.run(t, env, "queues", "--json")
		if err := json.Unmarshal([]byte(o.stdout), &rows); o.code != 0 || err != nil || len(rows) != 5 {
			t.Fatalf("code %d, %v, %d rows: %s %s", o.code, err, len(rows), o.stdout, o.stderr)
		}
		return rows
	}
	table := func(o outcome) string {
		var out strings.Builder
		for line := range strings.Lines(o.stdout) {
			out.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
		}
		return out.String()
	}

	// What is ready on the main queue is seen at once, before the broker has any statistics.
	enqueue(t, server, 2, "/orders") // the README's reader has sent two that are queued when this is shown
	if rows := lines(t, env); rows[0].Ready != 2 || rows[0].Error != "" {
		t.Errorf("at once: got %+v, want 2 ready", rows[0])
	}
	t.Run("the README's example", func(t *testing.T) {
		var want string
		for _, block := range consoleBlocks(readme(t)) {
			for _, example := range block {
				if rest, ok := strings.CutPrefix(example, "docker compose exec server /fallback queues\n"); ok {
					want = table(outcome{stdout: rest})
				}
			}
		}
		var got string
		defer func() {
			if t.Failed() {
				t.Logf("got\n%s\nthe README has\n%s", got, want)
			}
		}()
		harness.Eventually(t, "the same to be shown", func() bool {
			got = table(fallback.run(t, env, "queues"))
			return got == want
		})
	})
	t.Run("while requests come and go", func(t *testing.T) {
		ch := vhost.Channel(t, admin)
		for range 3 {
			if err := ch.Publish("", parkedQueue, true, false, amqp.Publishing{Body: []byte("x")}); err != nil {
				t.Fatal(err)
			}
		}
		if err := ch.Qos(1, 0, false); err != nil {
			t.Fatal(err)
		}
		// it keeps what it is sent
		if _, err := ch.Consume(parkedQueue, "", false, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
		taken, err := vhost.Channel(t, drainer).Consume(mainQueue, "", false, false, false, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		end := make(chan struct{})
		var traffic sync.WaitGroup
		traffic.Go(func() {
			for {
				select {
				case <-end:
					return
				case d := <-taken:
					if err := d.Ack(false); err != nil {
						t.Error(err)
						return
					}
				case <-time.After(20 * time.Millisecond):
					if _, err := exchange("POST", server.URL+"/fallback/orders", "x"); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
		defer traffic.Wait()
		defer close(end)
		var rows []statsLine
		defer func() {
			if t.Failed() {
				text, _ := json.Marshal(rows)
				t.Logf("the last answer: %s", text)
			}
		}()
		harness.Eventually(t, "the rates and what is in hand", func() bool {
			rows = lines(t, env)
			for _, row := range rows {
				if row.Error != "" || row.Unacked == nil || row.In == nil || row.Out == nil || row.Type != "quorum" ||
					row.State != "running" {
					return false
				}
			}
			main, parked := rows[0], rows[1]
			return *main.In > 1 && *main.Out > 1 && main.Consumers == 1 && parked.Ready == 2 && *parked.Unacked == 1 &&
				parked.Consumers == 1
		})
	})
	t.Run("queues that are not there", func(t *testing.T) {
		other := maps.Clone(env)
		other["FALLBACK_QUEUE"] = "Other"
		for _, row := range lines(t, other) {
			if row.Error != "does not exist" || row.Unacked != nil {
				t.Errorf("got %+v", row)
			}
		}
	})
	t.Run("with a wrong password", func(t *testing.T) {
		u := url.URL{Scheme: "http", Host: broker.Management, User: url.UserPassword(monitor, "tell-no-one")}
		o := fallback.run(t, harness.Settings{"AMQP_SERVER_URL": vhost.URL(admin),
			"RABBITMQ_MANAGEMENT_URL": u.String()}, "queues")
		o.check(t, 0, []string{"QUEUE", mainQueue, "check the user and password in RABBITMQ_MANAGEMENT_URL"},
			[]string{"tell-no-one", "UNACKED"})
	})
}
