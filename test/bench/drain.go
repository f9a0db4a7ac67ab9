package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/drain"
	"fallback/functions/topology"
)

// drainer is one of those that are compared where messages wait on the queue: the drain, and the two things that it is
// made of. run does with all that waits what it has to, and measures the whole of it, the connecting and the looking
// whether anything is left included.
type drainer struct {
	name    string
	about   string
	consume bool // needs the messages on the queue
	primary bool // needs the primary
	run     func(w *world, at place) (sample, error)
}

var drainers = []drainer{
	{
		name: "consume only", about: "the same messages taken and acked, one by one, by amqp091-go, with the " +
			"drain's prefetch",
		consume: true, run: consumeOnly,
	},
	{
		name: "POST only", about: "the same requests sent by net/http to the primary", primary: true, run: postOnly,
	},
	{
		name: "drain", about: "`fallback drain --once`, from its first connection to its report", consume: true,
		primary: true, run: runDrain,
	},
}

// drained are the places where drainers are compared. There are as many messages as keep the drain busy for a few
// seconds, so that its begin with one in flight, and its end, count for what they do in a real run. The first two
// have a ratio to reach; 8 in flight is the drain's default.
var drained = []place{
	{body: 256, inFlight: 128, waiting: 40_000},
	{body: 256, inFlight: 8, waiting: 40_000},
	{body: 16 << 10, inFlight: 128, waiting: 10_000},
}

// emptyQueues compares the drainers, and drains a long queue.
func (w *world) emptyQueues(r *results, o options) error {
	for round := 1; round <= o.drainRounds; round++ {
		for _, at := range drained {
			for _, d := range order(drainers, round) {
				c := cell{System: d.name, InFlight: at.inFlight, Body: at.body, Waiting: at.waiting, Round: round}
				if err := w.measureCell(r, c, func() (sample, error) { return w.empty(d, at) }); err != nil {
					return err
				}
			}
		}
		r.DrainRounds = round
		if err := r.save(o); err != nil {
			return err
		}
	}
	if o.long == 0 {
		return nil
	}
	var err error
	if r.Long, err = w.longQueue(o.long); err != nil {
		r.fail("a long queue", err)
	}
	return r.save(o)
}

// empty measures a drainer with a full queue and a broker at rest.
func (w *world) empty(d drainer, at place) (sample, error) {
	if d.consume {
		if err := w.fill(at); err != nil {
			return sample{}, err
		}
	}
	if d.primary {
		p, err := startServer(w, "http", w.addr)
		if err != nil {
			return sample{}, err
		}
		defer p.stop()
	}
	w.settle()
	return d.run(w, at)
}

// fill puts on the queue what is to wait there.
func (w *world) fill(at place) error {
	operations, closeAll, err := openAMQP(w, 512, make([]byte, at.body))
	if err != nil {
		return err
	}
	defer closeAll()
	if s := exactly(operations, at.waiting); s.Requests != at.waiting {
		return fmt.Errorf("%d of %d messages are on the queue", s.Requests, at.waiting)
	}
	return nil
}

// took is the sample of n requests that took d.
func took(n int, d time.Duration) sample {
	return sample{Requests: n, Seconds: d.Seconds(), PerSecond: float64(n) / d.Seconds()}
}

// ahead is how many the drain takes beside those in flight. A floor that took fewer would be none where few are in
// flight: the way to the broker and back would bound it, and not its work.
const ahead = 32

func consumeOnly(w *world, at place) (sample, error) {
	begin := time.Now()
	conn, err := amqp.Dial(w.amqpURL)
	if err != nil {
		return sample{}, err
	}
	defer conn.Close()
	// the wait for a message has no end of its own
	defer time.AfterFunc(time.Minute, func() { _ = conn.CloseDeadline(time.Now()) }).Stop()
	ch, err := conn.Channel()
	if err != nil {
		return sample{}, err
	}
	if err := ch.Qos(at.inFlight+ahead, 0, false); err != nil {
		return sample{}, err
	}
	deliveries, err := ch.Consume(topology.DefaultQueue, "bench", false, false, false, false, nil)
	if err != nil {
		return sample{}, err
	}
	for n := range at.waiting {
		d, open := <-deliveries
		if !open {
			return sample{}, fmt.Errorf("the connection was lost after %d messages", n)
		}
		if err := d.Ack(false); err != nil {
			return sample{}, err
		}
	}
	if err := ch.Cancel("bench", false); err != nil { // its answer comes after all acks have been read
		return sample{}, err
	}
	return took(at.waiting, time.Since(begin)), nil
}

// postOnly sends the requests with a client like the drain's own.
func postOnly(w *world, at place) (sample, error) {
	transport := &http.Transport{
		DialContext: (&net.Dialer{Timeout: patience}).DialContext, MaxIdleConnsPerHost: at.inFlight,
		IdleConnTimeout:    time.Minute,
		DisableCompression: true, ForceAttemptHTTP2: true,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	body := make([]byte, at.body)
	post := func() error {
		request, err := http.NewRequest(http.MethodPost, "http://"+w.addr+"/orders/42?x=1", bytes.NewReader(body))
		if err != nil {
			return err
		}
		for name, value := range map[string]string{
			"User-Agent": "bench", "Content-Type": "application/json",
			"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "127.0.0.1:34567",
			"X-Forwarded-Prefix": "/fallback",
			"Fallback-Id":        "01a20262-fead-745d-a0dd-93831abf4e21",
			"Idempotency-Key":    "01a20262-fead-745d-a0dd-93831abf4e21",
			"Fallback-Attempt":   "1", "Fallback-Received-At": "2026-11-22T08:32:51.885177639Z",
		} {
			request.Header.Set(name, value)
		}
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusAccepted {
			return fmt.Errorf("answer is %d", answer.StatusCode)
		}
		_, err = io.Copy(io.Discard, answer.Body)
		return err
	}
	operations := make([]operation, at.inFlight)
	for i := range operations {
		operations[i] = post
	}
	begin := time.Now()
	s := exactly(operations, at.waiting)
	if s.Requests != at.waiting { // it would be a lower floor for the drain
		return sample{}, fmt.Errorf("%d of %d were answered", s.Requests, at.waiting)
	}
	s.Seconds = time.Since(begin).Seconds()
	s.PerSecond = float64(s.Requests) / s.Seconds
	return s, nil
}

// runDrain is the built program's own run, as it reports it.
func runDrain(w *world, at place) (sample, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.fallback, "drain", "--once", "--for", "0", "--json")
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "AMQP_SERVER_URL=" + w.amqpURL, "FALLBACK_TARGET_URL=http://" + w.addr,
		fmt.Sprint("FALLBACK_DRAIN_CONCURRENCY=", at.inFlight), "LOG_LEVEL=warn",
	}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.Output()
	if err != nil {
		return sample{}, err
	}
	var report drain.Report
	if err := json.Unmarshal(out, &report); err != nil {
		return sample{}, err
	}
	if report.Delivered != at.waiting {
		return sample{}, fmt.Errorf("%d of %d delivered: %+v", report.Delivered, at.waiting, report)
	}
	s := took(report.Delivered, time.Duration(report.Seconds*float64(time.Second)))
	s.CPUMicros = float64((cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Microseconds()) / float64(s.Requests)
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.PeakMemory = float64(usage.Maxrss) / 1024
	}
	return s, nil
}
