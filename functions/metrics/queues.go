package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"fallback/functions/management"
)

const (
	// readTimeout bounds one reading of the queues; a scrape has ten seconds by default.
	readTimeout = 2 * time.Second
	// readEvery is for how long a reading holds, however many scrape: the broker's own statistics change every 5 s.
	readEvery = 2 * time.Second
)

// queues collects the depths of the queues. Where they cannot be read, there are none, rather than old or wrong ones,
// and fallback_queues_up says so.
type queues struct {
	read         func(context.Context) ([]management.Queue, error)
	log          *slog.Logger
	messages, up *prometheus.Desc

	mu   sync.Mutex // guards the rest, and lets one scrape read while the others wait for it
	at   time.Time
	rows []management.Queue
	err  error
	said string // of err, in the log
}

func newQueues(read func(context.Context) ([]management.Queue, error), log *slog.Logger) *queues {
	return &queues{
		read: read, log: log,
		messages: prometheus.NewDesc("fallback_queue_messages",
			"Messages on a queue: ready, and in a consumer's hands.", []string{"queue"}, nil),
		up: prometheus.NewDesc("fallback_queues_up",
			"1 if the depths of all queues could be read from the management API.", nil, nil),
	}
}

func (q *queues) Describe(out chan<- *prometheus.Desc) {
	out <- q.messages
	out <- q.up
}

func (q *queues) Collect(out chan<- prometheus.Metric) {
	rows, err := q.latest()
	for _, row := range rows {
		if row.Err == nil {
			out <- prometheus.MustNewConstMetric(q.messages, prometheus.GaugeValue, float64(row.Messages), row.Name)
		}
	}
	out <- prometheus.MustNewConstMetric(q.up, prometheus.GaugeValue, number(err == nil))
}

// latest are the rows of the last reading, or of a new one. The error says what is missing.
func (q *queues) latest() ([]management.Queue, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if time.Since(q.at) < readEvery {
		return q.rows, q.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	q.rows, q.err = q.read(ctx)
	for _, row := range q.rows {
		if row.Err != nil {
			q.err = errors.Join(q.err, fmt.Errorf("queue %s: %w", row.Name, row.Err))
		}
	}
	q.at = time.Now()
	q.tell()
	return q.rows, q.err
}

// tell logs when the reading begins to fail, fails in another way, and works again.
func (q *queues) tell() {
	said := ""
	if q.err != nil {
		said = q.err.Error()
	}
	switch {
	case said == q.said:
	case said == "":
		q.log.Info("the depths of the queues can be read again")
	default:
		q.log.Warn("cannot read the depths of the queues", "error", q.err, "hint", "check RABBITMQ_MANAGEMENT_URL")
	}
	q.said = said
}
