package metrics

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"fallback/functions/config"
	"fallback/functions/drain"
	"fallback/functions/management"
)

// Worker is what the drain's worker counts; it answers GET /metrics.
type Worker struct {
	http.Handler
	settled *prometheus.CounterVec
	pauses  prometheus.Counter
	trouble *prometheus.GaugeVec

	// Vectors without labels: their one series is not there before there is something to say.
	lastRun, targetUp *prometheus.GaugeVec
}

// NewWorker returns a Worker that has counted nothing. With RABBITMQ_MANAGEMENT_URL it shows the queues' depths, too.
// The error is about that URL.
func NewWorker(c config.Config, log *slog.Logger) (*Worker, error) {
	w := &Worker{
		settled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fallback_drain_total", Help: "Requests that were with the drain, by what became of " +
				"them; returned and held are still on the queue.",
		}, []string{"outcome"}),
		pauses: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fallback_drain_pauses_total",
			Help: "Pauses for the primary's sake; counted when their run has ended.",
		}),
		trouble: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "fallback_drain_trouble", Help: "1 while there is such a trouble, by what it is.",
		}, []string{"trouble"}),
		lastRun: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "fallback_drain_last_run_timestamp_seconds", Help: "When the last run ended, in Unix time.",
		}, nil),
		targetUp: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "fallback_target_up", Help: "1 if the primary was alive when it was last asked, which is when " +
				"something waits.",
		}, nil),
	}
	for _, outcome := range drain.Outcomes() {
		w.settled.WithLabelValues(string(outcome))
	}
	for _, trouble := range drain.Troubles() {
		w.trouble.WithLabelValues(string(trouble))
	}
	registry := newRegistry(w.settled, w.pauses, w.trouble, w.lastRun, w.targetUp)
	w.Handler = handler(registry)
	if c.ManagementURL == "" {
		return w, nil
	}
	broker, err := management.New(c.ManagementURL.Reveal())
	if err != nil {
		return nil, err
	}
	registry.MustRegister(newQueues(func(ctx context.Context) ([]management.Queue, error) {
		return broker.Queues(ctx, c.VHost, c.Topology.Queues())
	}, log))
	return w, nil
}

// Settled counts what became of a request.
func (w *Worker) Settled(o drain.Outcome) { w.settled.WithLabelValues(string(o)).Inc() }

// Probed notes whether the primary is alive.
func (w *Worker) Probed(alive bool) { w.targetUp.WithLabelValues().Set(number(alive)) }

// Troubled notes that a trouble begins or ends.
func (w *Worker) Troubled(t drain.Trouble, on bool) {
	w.trouble.WithLabelValues(string(t)).Set(number(on))
}

// Ran notes the end of a run.
func (w *Worker) Ran(r drain.Report) {
	w.pauses.Add(float64(r.Pauses))
	w.lastRun.WithLabelValues().SetToCurrentTime()
}
