//go:build e2e

package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
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
		{"redrive on a terminal", operatorTerminal},
		{"redrive interrupted", operatorInterrupted},
		{"redrive killed", operatorKilled},
		{"redrive what was too old", operatorStale},
		{"discard", operatorDiscard},
		{"discard after all not", operatorThinksBetter},
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
	primary := harness.NewPrimary(t, func(r harness.Received) harness.Answer {
		if r.Target == "/taken" {
			return harness.Answer{}
		}
		return harness.Answer{Status: 422}
	})
	d, _ := vhost.Drain(t, primary, nil)
	for i := range n {
		if i%10 == 9 { // of many in a row, the fault may be the way's
			checkAccepted(t, send(t, "POST", server.URL+"/fallback/taken", ""))
		}
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
	IsBase64 bool                `json:"is_base64_encoded"`
}

func operatorPeek(t *testing.T, fallback program) {
	vhost := broker.VHost(t)
	env := harness.Settings{"AMQP_SERVER_URL": vhost.URL(topology.Drainer)}
	fallback.run(t, env, "peek").check(t, 0, []string{"nothing waits"}, nil)
	ids := park(t, vhost, 3, "/orders?x=1", "Authorization", "Bearer geheim", "Cookie", "session=geheim", "X-Tag",
		"shown")
	for range 25 { // more than RabbitMQ's own delivery limit
		fallback.run(t, env, "peek", "parked").check(t, 0,
			append([]string{"/orders?x=1", "POST", "422 Unprocessable Entity"}, ids...), []string{"geheim", "shown"})
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
		if i < 0 || row.Method != "POST" || row.Target != "/orders?x=1" || row.Attempts != 1 ||
			row.Body != fmt.Sprint(i) || row.Header["Authorization"][0] != "(hidden)" {
			t.Errorf("row %d: got %+v", i, row)
		}
	}
	if n := vhost.Count(t, parkedQueue); n != 3 {
		t.Errorf("%d are parked after all this, want 3", n)
	}
	const noText = "\x1f\x8b\xff"
	checkAccepted(t, send(t, "POST", vhost.Serve(t, nil).URL+"/fallback/bytes", noText))
	o = fallback.run(t, env, "peek", "--json", "--bodies")
	if err := json.Unmarshal([]byte(o.stdout), &rows); err != nil || len(rows) != 1 || !rows[0].IsBase64 ||
		rows[0].Body != base64.StdEncoding.EncodeToString([]byte(noText)) {
		t.Errorf("a body that is no text: got %v, %s", err, o.stdout)
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
		if name != "fallback" && name != "fallback-redriven-at" && (name != "x-delivery-count" || delivered(m)) {
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
	if err := json.Unmarshal([]byte(o.stdout), &got); err != nil || o.code != 0 || len(got.IDs) != 19 ||
		got.Left != 0 || o.stderr != "" {
		t.Errorf("all: got code %d, %v, %+v %s", o.code, err, got, o.stderr)
	}
	if took := time.Since(begin); took < 1700*time.Millisecond {
		t.Errorf("19 at 10 a second took %s", took)
	}
	if n := vhost.Count(t, topology.DefaultQueue); n != 19 {
		t.Errorf("%d are on the queue, want 19", n)
	}
}

// operatorTerminal holds that who sits at a terminal sees how far it is, and the result on a line of its own.
func operatorTerminal(t *testing.T, fallback program) {
	vhost := broker.VHost(t)
	park(t, vhost, 3, "/orders")
	cmd := exec.Command("script", "-qec", string(fallback)+" redrive --all", "/dev/null")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "AMQP_SERVER_URL=" + vhost.URL(topology.Drainer)}
	out, err := cmd.CombinedOutput()
	bar, said, _ := strings.Cut(string(out), "\r\n")
	if err != nil || !strings.Contains(bar, "(1/3") || !strings.Contains(bar, "(3/3") ||
		!strings.HasPrefix(said, "redriven 3; 0 left on "+parkedQueue) {
		t.Errorf("got %v, %q", err, out)
	}
}

// operatorStale holds that a request which was parked for its age is delivered when an operator redrives it.
func operatorStale(t *testing.T, fallback program) {
	vhost := broker.VHost(t)
	primary := harness.NewPrimary(t, nil)
	d, _ := vhost.Drain(t, primary, harness.Settings{"FALLBACK_MAX_AGE": "20s", "FALLBACK_STALE": "park"})
	received := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	if err := vhost.Channel(t, topology.Admin).Publish("", topology.DefaultQueue, true, false, amqp.Publishing{
		MessageId: "old", Headers: amqp.Table{"fallback": `{"v":1,"method":"POST","target":"/orders","received_at":"` +
			received + `"}`}, Body: []byte("0"),
	}); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "it to wait", func() bool { return vhost.Count(t, topology.DefaultQueue) == 1 })
	if r := once(t, d); r.Parked != 1 {
		t.Fatalf("got %+v, want it parked", r)
	}
	env := harness.Settings{"AMQP_SERVER_URL": vhost.URL(topology.Drainer)}
	fallback.run(t, env, "peek", "parked").check(t, 0, []string{"older than 20s"}, nil)
	fallback.run(t, env, "redrive", "--id", "old").check(t, 0, []string{"redriven 1; 0 left"}, nil)
	if r := once(t, d); r.Delivered != 1 || r.Parked != 0 {
		t.Errorf("redriven: got %+v, want it delivered", r)
	}
	checkOnce(t, primary, 1, "/orders")
}

// operatorInterrupted holds that an interrupt in the middle leaves each request on one of the two queues.
func operatorInterrupted(t *testing.T, fallback program) {
	vhost := broker.VHost(t)
	park(t, vhost, 50, "/orders")
	out, log, err := redriveUntil(t, fallback, vhost, syscall.SIGINT)
	if err == nil || !strings.Contains(log, "interrupted") || !strings.Contains(out, "redriven ") {
		t.Errorf("got %v, %s, %s", err, out, log)
	}
	harness.Eventually(t, "what was in hand to be back", func() bool {
		return vhost.Count(t, topology.DefaultQueue)+vhost.Count(t, parkedQueue) == 50
	})
	fallback.run(t, harness.Settings{"AMQP_SERVER_URL": vhost.URL(topology.Drainer)}, "redrive", "--all").check(t, 0,
		[]string{"0 left"}, nil)
	server := vhost.Serve(t, nil)
	server.WaitReady(t)
	primary := harness.NewPrimary(t, nil)
	d, _ := vhost.Drain(t, primary, nil)
	once(t, d)
	checkOnce(t, primary, 50, "/orders")
}

// redriveUntil has all redriven, and sends the signal when some have been.
func redriveUntil(t *testing.T, fallback program, vhost *harness.VHost, signal os.Signal) (stdout, stderr string,
	err error) {
	t.Helper()
	cmd := exec.Command(string(fallback), "redrive", "--all", "--rate", "10")
	cmd.Env = []string{"AMQP_SERVER_URL=" + vhost.URL(topology.Drainer)}
	var out, log harness.Log
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	harness.Eventually(t, "some to be redriven", func() bool { return vhost.Count(t, topology.DefaultQueue) >= 5 })
	if err := cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	return out.String(), log.String(), err
}

// operatorKilled holds that a kill in the middle loses nothing: one request may be on both queues.
func operatorKilled(t *testing.T, fallback program) {
	vhost := broker.VHost(t)
	park(t, vhost, 50, "/orders")
	if _, _, err := redriveUntil(t, fallback, vhost, syscall.SIGKILL); err == nil {
		t.Error("it was not killed")
	}
	harness.Eventually(t, "what was in hand to be back", func() bool {
		n := vhost.Count(t, topology.DefaultQueue) + vhost.Count(t, parkedQueue)
		return n == 50 || n == 51
	})
	fallback.run(t, harness.Settings{"AMQP_SERVER_URL": vhost.URL(topology.Drainer)}, "redrive", "--all").check(t, 0,
		[]string{"0 left"}, nil)
	primary := harness.NewPrimary(t, nil)
	d, _ := vhost.Drain(t, primary, nil)
	once(t, d)
	bodies, sent := map[string]bool{}, 0
	for _, r := range primary.Got() {
		if r.Target == "/orders" {
			bodies[string(r.Body)] = true
			sent++
		}
	}
	if len(bodies) != 50 || sent > 51 {
		t.Errorf("the primary got %d of 50, %d in all", len(bodies), sent)
	}
}

// operatorThinksBetter holds that Ctrl-C at the question ends the command, and nothing is deleted.
func operatorThinksBetter(t *testing.T, fallback program) {
	vhost := broker.VHost(t)
	park(t, vhost, 2, "/orders")
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "script", "-qec", string(fallback)+" discard --all", "/dev/null")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "AMQP_SERVER_URL=" + vhost.URL(topology.Drainer)}
	var out harness.Log
	cmd.Stdout, cmd.Stderr = &out, &out
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the question", func() bool { return strings.Contains(out.String(), "[y/N]") })
	if _, err := keys.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || ctx.Err() != nil || !strings.Contains(out.String(), "nothing was deleted") {
		t.Errorf("got %v, %s", err, out.String())
	}
	if n := vhost.Count(t, parkedQueue); n != 2 {
		t.Errorf("%d are parked, want 2", n)
	}
}

func operatorDiscard(t *testing.T, fallback program) {
	vhost := broker.VHost(t)
	env := harness.Settings{"AMQP_SERVER_URL": vhost.URL(topology.Drainer)}
	ids := park(t, vhost, 5, "/orders")
	fallback.run(t, env, "discard", "--all").check(t, 2, []string{"--yes"}, nil)
	fallback.run(t, env, "discard", "--id", ids[1], "--id", ids[3], "--yes").check(t, 0,
		[]string{"discarded 2; 3 left"}, nil)
	o := fallback.run(t, env, "peek", "parked")
	o.check(t, 0, []string{ids[0], ids[2], ids[4]}, []string{ids[1], ids[3]})
	fallback.run(t, env, "discard", "--all", "--yes").check(t, 0, []string{"discarded 3; 0 left"}, nil)
}
