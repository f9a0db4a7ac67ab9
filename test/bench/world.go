package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/topology"
	"fallback/test/harness"
)

// world is what every cell needs.
type world struct {
	self, fallback string // programs
	amqpURL        string
	amqp           string // host:port
	management     string // host:port
	addr           string // of the server under measurement
	broker         *harness.Broker
	brokerProcess  *process // nil where the container's processes are not to be seen
}

func newWorld(o options) (*world, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	fallback := filepath.Join(harness.Root(), "dist", "fallback")
	if _, err := os.Stat(fallback); err != nil {
		return nil, fmt.Errorf("%w: run make build first", err)
	}
	if _, err := os.Stat(functionExec()); err != nil && !o.quick && !o.drain {
		return nil, fmt.Errorf("%w: run make function first", err)
	}
	if _, err := os.Stat(lambdaBootstrap()); err != nil && !o.quick && !o.drain {
		return nil, fmt.Errorf("%w: run make lambda first", err)
	}
	fmt.Fprintln(os.Stderr, "starting RabbitMQ", harness.Version())
	broker, err := harness.StartBroker(harness.BrokerOptions{Memory: 3 << 30})
	if err != nil {
		return nil, err
	}
	// What a cell leaves behind is not gone at once, and the faster the machine, the more it is: an alarm would be
	// measured.
	if err := broker.Eval(`vm_memory_monitor:set_vm_memory_high_watermark({absolute, 2 bsl 30})`); err != nil {
		return nil, errors.Join(err, broker.Close())
	}
	// The container's own address: through the published port, every byte would pass one more process.
	ip := broker.IP()
	return &world{
		self: self, fallback: fallback, broker: broker, amqp: ip + ":5672", management: ip + ":15672",
		addr: harness.FreeAddress(),
		amqpURL: "amqp://" + topology.Admin + ":" + topology.Demonstration(topology.Admin).Plain + "@" + ip +
			":5672/",
		brokerProcess: findBroker(broker.ID()),
	}, nil
}

// findBroker is the Erlang machine of a container, nil if it cannot be found.
func findBroker(container string) *process {
	out, err := exec.Command("docker", "top", container, "-eo", "pid,comm").Output()
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 2 && f[1] == "beam.smp" {
			pid, _ := strconv.Atoi(f[0])
			return &process{pid: pid}
		}
	}
	return nil
}

// measureCell measures one cell, which begins with an empty queue. Its only error is that the broker is gone: what
// else goes wrong is noted in the results.
func (w *world) measureCell(r *results, c cell, once func() (sample, error)) error {
	if err := w.purge(); err != nil {
		return fmt.Errorf("the broker is gone: %w", err)
	}
	measured, err := once()
	r.add(c, measured, err)
	return nil
}

// sample measures a system with a broker that is at rest and a server that has just been started.
func (w *world) sample(s system, c cell, d time.Duration) (sample, error) {
	w.settle()
	var p *process
	if s.server != "" {
		var err error
		if p, err = startServer(w, s.server, w.addr); err != nil {
			return sample{}, err
		}
		defer p.stop()
	}
	operations, closeAll, err := s.open(w, c.InFlight, make([]byte, c.Body))
	if err != nil {
		return sample{}, err
	}
	defer closeAll()
	run := func(d time.Duration) sample {
		if c.Rate > 0 {
			return openLoop(operations, c.Rate, d)
		}
		return closedLoop(operations, d)
	}
	run(d / 4) // warm up
	if p == nil {
		return run(d), nil
	}
	before, err := p.cpu()
	if err != nil {
		return sample{}, err
	}
	measured := run(d)
	after, err := p.cpu()
	if err != nil {
		return sample{}, err
	}
	if measured.Requests > 0 {
		measured.CPUMicros = float64((after - before).Microseconds()) / float64(measured.Requests)
	}
	_, measured.PeakMemory, err = p.memory()
	return measured, err
}

// purge empties the queue. A broker that is busy is given time.
func (w *world) purge() error {
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		if err = w.purgeOnce(); err == nil {
			return nil
		}
	}
	return err
}

func (w *world) purgeOnce() error {
	conn, err := amqp.Dial(w.amqpURL)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	_, err = ch.QueuePurge(topology.DefaultQueue, false)
	return err
}

// settle waits until the broker has done with what came before, connections to close and segments to drop: until it
// uses less than a fifth of a core, 5 s at most.
func (w *world) settle() {
	const look = 150 * time.Millisecond
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		used, err := w.brokerUses(look)
		if err != nil {
			time.Sleep(2 * look)
			return
		}
		if used <= look/5 {
			return
		}
	}
}

// brokerUses is the processor time that the broker uses in d.
func (w *world) brokerUses(d time.Duration) (time.Duration, error) {
	if w.brokerProcess == nil {
		return 0, errors.New("the broker's process is not to be seen")
	}
	before, err := w.brokerProcess.cpu()
	if err != nil {
		return 0, err
	}
	time.Sleep(d)
	after, err := w.brokerProcess.cpu()
	return after - before, err
}
