// Package metrics shows Prometheus what a server or the drain's worker does: what comes in is calls from the hot paths,
// what goes out is the answer to GET /metrics.
//
// Counters begin with the process. Labels come from closed sets. The names are the README's, under "Watching it".
//
// What it shows knows nothing of it, and app takes it as an interface, so that what the functions link holds no
// metrics.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// atOnce bounds the scrapes that are answered at the same time: the server's port is open to strangers.
const atOnce = 4

// newRegistry holds the Go runtime's and the process's own metrics, beside these.
func newRegistry(others ...prometheus.Collector) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.MustRegister(others...)
	return r
}

func handler(r *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: atOnce, DisableCompression: true})
}

func gauge(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
