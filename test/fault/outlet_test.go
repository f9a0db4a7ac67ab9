package fault

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"fallback/test/harness"
)

// TestOutletEnters holds what the ledger says of what comes to the primary.
func TestOutletEnters(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		answer harness.Answer
		change func(*http.Request)
		want   audit
		fails  bool // no answer comes
	}{
		{"taken", harness.Answer{}, nil, audit{Sent: 1, Acknowledged: 1, Delivered: 1}, false},
		{"taken, and the answer broken off", harness.Answer{Cut: true}, nil,
			audit{Sent: 1, Acknowledged: 1, Delivered: 1}, true},
		{"failed", harness.Answer{Status: 500}, nil, audit{Sent: 1, Acknowledged: 1, Lost: 1}, false},
		{"answered by a door", harness.Answer{Status: 202, Header: map[string]string{"Fallback-Id": "b"}}, nil,
			audit{Sent: 1, Acknowledged: 1, Lost: 1}, false},
		{"altered", harness.Answer{}, func(r *http.Request) { r.Header.Set(checkHeader, "other") },
			audit{Sent: 1, Acknowledged: 1, Delivered: 1, Corrupt: 1}, false},
		{"another key", harness.Answer{}, func(r *http.Request) { r.Header.Set("Idempotency-Key", "b") },
			audit{Sent: 1, Acknowledged: 1, Delivered: 1, Corrupt: 1}, false},
		{"nobody's", harness.Answer{}, func(r *http.Request) { r.Header.Del(ledgerID) },
			audit{Sent: 1, Acknowledged: 1, Lost: 1, Unexpected: 1}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			o := &outlet{ledger: newLedger(0), rand: rand.New(rand.NewPCG(1, 1))}
			o.some(1, row.answer)
			primary := harness.NewPrimary(t, o.receive)
			q := newLoad(o.ledger, 42, 0).request(7)
			o.ledger.sending(q.id, q.sum())
			o.ledger.record(q.id, "a", harness.Elapsed{})
			sent, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(q.append(nil, door{primary.URL, ""}))))
			if err != nil {
				t.Fatal(err)
			}
			r, err := http.NewRequest(sent.Method, primary.URL+sent.RequestURI, bytes.NewReader(q.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header = sent.Header
			r.Header.Set("Fallback-Id", "a")
			r.Header.Set("Idempotency-Key", "a")
			if row.change != nil {
				row.change(r)
			}
			answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
			if (err != nil) != row.fails {
				t.Fatalf("got %v, %v", answer, err)
			}
			if err == nil {
				answer.Body.Close()
			}
			got := o.ledger.audit()
			got.Answers, got.Examples = nil, nil
			if !equal(got, row.want) {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
		})
	}
}

// TestTooEarly holds that what comes sooner than it was asked to is counted, and nothing else.
func TestTooEarly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &outlet{due: map[string]time.Time{}}
		wait := harness.Answer{Status: 429, RetryAfter: 2, After: time.Second}
		for _, step := range []struct {
			after  time.Duration
			who    string
			answer harness.Answer
			early  int64
		}{
			{0, "a", wait, 0}, {time.Second, "b", harness.Answer{}, 0}, {2 * time.Second, "a", wait, 0},
			{2 * time.Second, "a", harness.Answer{}, 1}, {time.Second, "a", harness.Answer{}, 1},
		} {
			time.Sleep(step.after)
			if o.keepTime(step.who, step.answer); o.early.Load() != step.early {
				t.Errorf("%+v: %d came early", step, o.early.Load())
			}
		}
	})
}

// TestWorkersAreHeard holds what is counted from the workers' logs.
func TestWorkersAreHeard(t *testing.T) {
	t.Parallel()
	log := &harness.Log{}
	for _, line := range []string{
		`{"level":"INFO","msg":"draining"}`, `not JSON`, `{"level":"WARN","msg":"paused","detail":"503"}`,
		`{"level":"WARN","msg":"the primary is down"}`, `{"level":"WARN","msg":"the queue cannot be read"}`,
		`{"level":"INFO","msg":"drained","report":{"delivered":9,"parked":2,"expired":3,"end":"the queue is empty"}}`,
		`{"level":"INFO","msg":"drained","report":{"parked":1,"expired":4}}`,
	} {
		_, _ = log.Write([]byte(line + "\n"))
	}
	p, err := startProxy("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	o := &outlet{proxy: p, workers: []*process{{log: log}}}
	if got, want := o.replays(), (replays{waits: 2, expired: 7}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestExpired(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		before audit
		n      int
		want   audit
	}{
		{audit{Lost: 5}, 5, audit{Expired: 5}},
		{audit{Lost: 5}, 3, audit{Expired: 3, Lost: 2}},
		{audit{Lost: 5, Undetermined: 3, Found: 1}, 7, audit{Expired: 5, Undetermined: 3, Found: 1}},
		{audit{Lost: 5, Undetermined: 3, Found: 1}, 8, audit{Expired: 5, Undetermined: 3, Found: 1, Overbooked: 1}},
		{audit{}, 0, audit{}},
		{audit{Undetermined: 3}, 0, audit{Undetermined: 3}},
	} {
		got := row.before
		got.expire(row.n)
		if !equal(got, row.want) || got.Expired != row.want.Expired || got.Overbooked != row.want.Overbooked {
			t.Errorf("%+v, %d expired: got %+v, want %+v", row.before, row.n, got, row.want)
		}
	}
}

// TestFaultsAreToldApart holds what the lists rest on: results go by the name.
func TestFaultsAreToldApart(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for i, list := range [][]fault{faults, replayed} {
		for _, f := range list {
			if names[f.name] || f.about == "" || f.shows == nil || (f.workers > 0) != (i == 1) {
				t.Errorf("fault %q", f.name)
			}
			names[f.name] = true
		}
	}
}
