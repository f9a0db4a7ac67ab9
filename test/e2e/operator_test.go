//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// TestOperator runs the commands that look at what waits and move what is parked.
func TestOperator(t *testing.T) {
	t.Parallel()
	fallback := build(t)
	for _, row := range []struct {
		name string
		test func(*testing.T, program)
	}{
		{"peek", operatorPeek},
		{"redrive", operatorRedrive},
		{"redrive interrupted", operatorInterrupted},
		{"discard", operatorDiscard},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.test(t, fallback)
		})
	}
}

// park puts n requests on the queue through the server, to the path, and has the drain park them. It returns their ids.
func park(t *testing.T, vhost *harness.VHost, n int, path string, header ...string) (ids []string) {
	t.Helper()
	server := vhost.Serve(t, nil)
	primary := harness.NewPrimary(t, func(harness.Received) harness.Answer { return harness.Answer{Status: 422} })
	d, _ := vhost.Drain(t, primary, nil)
	for i := range n {
		r := send(t, "POST", server.URL+"/fallback"+path, fmt.Sprint(i), header...)
		checkAccepted(t, r)
		ids = append(ids, r.id())
	}
	if r := once(t, d); r.Parked != n {
		t.Fatalf("got %+v, want %d parked", r, n)
	}
	return ids
}

// peekLine is a row of `fallback peek --json`.
type peekLine struct {
	ID       string              `json:"id"`
	Method   string              `json:"method"`
	Target   string              `json:"target"`
	Attempts int                 `json:"attempts"`
	Reason   string              `json:"reason"`
	Header   map[string][]string `json:"header"`
	Body     string              `json:"body"`
}

func operatorPeek(t *testing.T, fallback program) {
	vhost := broker.VHost(t)
	env := harness.Settings{"AMQP_SERVER_URL": vhost.URL(topology.Drainer)}
	fallback.run(t, env, "peek").check(t, 0, []string{"nothing waits"}, nil)
	ids := park(t, vhost, 3, "/orders?x=1", "Authorization", "Bearer geheim", "Cookie", "session=geheim", "X-Tag", "shown")
	for range 25 { // more than RabbitMQ's own delivery limit
		fallback.run(t, env, "peek", "parked").check(t, 0, append([]string{"/orders?x=1", "POST", "422 Unprocessable Entity"}, ids...), []string{"geheim", "shown"})
		if t.Failed() {
			return
		}
	}
	o := fallback.run(t, env, "peek", "parked", "--json", "--bodies", "--most", "2")
	o.check(t, 0, []string{"shown"}, []string{"geheim"})
	var rows []peekLine
	if err := json.Unmarshal([]byte(o.stdout), &rows); err != nil || len(rows) != 2 {
		t.Fatalf("got %v, %d rows", err, len(rows))
	}
	for _, row := range rows { // in which order they come back is the broker's affair
		i := slices.Index(ids, row.ID)
		if i < 0 || row.Method != "POST" || row.Target != "/orders?x=1" || row.Attempts != 1 || row.Body != fmt.Sprint(i) || row.Header["Authorization"][0] != "(hidden)" {
			t.Errorf("row %d: got %+v", i, row)
		}
	}
	if n := vhost.Count(t, parkedQueue); n != 3 {
		t.Errorf("%d are parked after all this, want 3", n)
	}
	fallback.run(t, env, "peek", "somewhere").check(t, 2, []string{"main or parked"}, nil)
	denied := harness.Settings{"AMQP_SERVER_URL": vhost.URL(topology.Publisher)}
	fallback.run(t, denied, "peek", "parked").check(t, 1, []string{"lacks the permission"}, nil)
}

func operatorRedrive(t *testing.T, fallback program) {
	vhost := broker.VHost(t)
	env := harness.Settings{"AMQP_SERVER_URL": vhost.URL(topology.Drainer)}
	ids := park(t, vhost, 20, "/orders")
	fallback.run(t, env, "redrive").check(t, 2, []string{"--id", "--all"}, nil)
	fallback.run(t, env, "redrive", "--id", ids[7]).check(t, 0, []string{"redriven 1; 19 left on " + parkedQueue}, nil)
	m := takeOne(t, vhost, topology.DefaultQueue)
	if m.MessageId != ids[7] || string(m.Body) != "7" || m.DeliveryMode != amqp.Persistent {
		t.Errorf("got %s %q", m.MessageId, m.Body)
	}
	for name := range m.Headers {
		if name != "fallback" && (name != "x-delivery-count" || delivered(m)) {
			t.Errorf("redriven with the header %s", name)
		}
	}
	fallback.run(t, env, "redrive", "--id", ids[7]).check(t, 1, []string{"not on the queue", ids[7]}, nil)
	begin := time.Now()
	o := fallback.run(t, env, "redrive", "--all", "--rate", "10", "--json")
	var got struct {
		IDs  []string `json:"ids"`
		Left int      `json:"left"`
	}
	if err := json.Unmarshal([]byte(o.stdout), &got); err != nil || o.code != 0 || len(got.IDs) != 19 || got.Left != 0 {
		t.Errorf("all: got code %d, %v, %+v %s", o.code, err, got, o.stderr)
	}
	if took := time.Since(begin); took < 1700*time.Millisecond {
		t.Errorf("19 at 10 a second took %s", took)
	}
	if n := vhost.Count(t, topology.DefaultQueue); n != 19 {
		t.Errorf("%d are on the queue, want 19", n)
	}
}

// operatorInterrupted holds that an interrupt in the middle leaves each request on one of the two queues.
func operatorInterrupted(t *testing.T, fallback program) {
	vhost := broker.VHost(t)
	park(t, vhost, 50, "/orders")
	cmd := exec.Command(string(fallback), "redrive", "--all", "--rate", "20")
	cmd.Env = []string{"AMQP_SERVER_URL=" + vhost.URL(topology.Drainer)}
	var out, log harness.Log
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 20*time.Second, "some to be redriven", func() bool { return vhost.Count(t, topology.DefaultQueue) >= 5 })
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if err == nil || !strings.Contains(log.String(), "interrupted") || !strings.Contains(out.String(), "redriven ") {
		t.Errorf("got %v, %s, %s", err, out.String(), log.String())
	}
	harness.Eventually(t, 10*time.Second, "what was in hand to be back", func() bool {
		return vhost.Count(t, topology.DefaultQueue)+vhost.Count(t, parkedQueue) == 50
	})
	fallback.run(t, harness.Settings{"AMQP_SERVER_URL": vhost.URL(topology.Drainer)}, "redrive", "--all").check(t, 0, []string{"0 left"}, nil)
	server := vhost.Serve(t, nil)
	server.WaitReady(t)
	primary := harness.NewPrimary(t, nil)
	d, _ := vhost.Drain(t, primary, nil)
	once(t, d)
	checkOnce(t, primary, 50, "/orders")
}

func operatorDiscard(t *testing.T, fallback program) {
	vhost := broker.VHost(t)
	env := harness.Settings{"AMQP_SERVER_URL": vhost.URL(topology.Drainer)}
	ids := park(t, vhost, 5, "/orders")
	fallback.run(t, env, "discard", "--all").check(t, 2, []string{"--yes"}, nil)
	fallback.run(t, env, "discard", "--id", ids[1], "--id", ids[3], "--yes").check(t, 0, []string{"discarded 2; 3 left"}, nil)
	o := fallback.run(t, env, "peek", "parked")
	o.check(t, 0, []string{ids[0], ids[2], ids[4]}, []string{ids[1], ids[3]})
	fallback.run(t, env, "discard", "--all", "--yes").check(t, 0, []string{"discarded 3; 0 left"}, nil)
}
