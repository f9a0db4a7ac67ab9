package metrics

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"fallback/functions/config"
	"fallback/functions/httpapi"
	"fallback/functions/rabbit"
)

// KeyUses is a metric of the server, by kind and place of a key; `fallback doctor` reads it.
const KeyUses = "fallback_key_uses_total"

// Server is what `fallback serve` counts; it answers GET /metrics.
type Server struct {
	http.Handler
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	outcomes map[string]prometheus.Counter // of requests; not written to after NewServer
	keys     map[key]prometheus.Counter    // likewise
	took     prometheus.Histogram
	refused  *prometheus.CounterVec
}

// key is a token or a secret, by where it stands in its list, from 1.
type key struct {
	kind  string
	place int
}

// NewServer returns a Server that has counted nothing: every outcome and every key of the settings is there from the
// start, as 0, so that the first is seen as a change.
func NewServer(c config.Config) *Server {
	s := &Server{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fallback_requests_total", Help: "Requests answered, by outcome: accepted (202), preflight (204), " +
				"or the problem's type.",
		}, []string{"outcome"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "fallback_request_duration_seconds",
			Help:    "From a request's headers to its answer, whatever the outcome.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
		outcomes: map[string]prometheus.Counter{},
		keys:     map[key]prometheus.Counter{},
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fallback_connections_refused_total", Help: "Connections turned away, by why.",
		}, []string{"reason"}),
	}
	keys := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: KeyUses, Help: "Requests let in by a token (FALLBACK_TOKENS), webhook (FALLBACK_WEBHOOK_SECRETS) or " +
			"replay (FALLBACK_ACCEPT_REPLAYS) secret, by its place in the list.",
	}, []string{"kind", "place"})
	for kind, list := range map[string][]config.Secret{
		httpapi.Token: c.Tokens, httpapi.Webhook: c.WebhookSecrets, httpapi.Replay: c.AcceptReplays,
	} {
		for i := range list {
			s.keys[key{kind, i + 1}] = keys.WithLabelValues(kind, strconv.Itoa(i+1))
		}
	}
	for _, outcome := range append(httpapi.Outcomes(), rabbit.Codes()...) {
		s.outcomes[outcome] = s.requests.WithLabelValues(outcome)
	}
	for _, reason := range httpapi.Refusals() {
		s.refused.WithLabelValues(reason)
	}
	s.registry = newRegistry(s.requests, s.took, keys, s.refused)
	s.Handler = handler(s.registry)
	return s
}

// Answered counts a request. It is on every request's way, so nothing here allocates.
func (s *Server) Answered(outcome string, took time.Duration) {
	s.took.Observe(took.Seconds())
	if c := s.outcomes[outcome]; c != nil {
		c.Inc()
	} else {
		s.requests.WithLabelValues(outcome).Inc()
	}
}

// Admitted counts the use of a key.
func (s *Server) Admitted(kind string, place int) {
	if c := s.keys[key{kind, place}]; c != nil {
		c.Inc()
	}
}

// Refused counts a connection that was turned away.
func (s *Server) Refused(reason string) { s.refused.WithLabelValues(reason).Inc() }

// Watch adds what is so at the moment of a scrape. It is called once.
func (s *Server) Watch(inHand func() (requests, bytes int64), broker func() (connected, blocked bool)) {
	s.registry.MustRegister(
		gauge("fallback_requests_in_hand", "Requests in hand now.", func() float64 {
			requests, _ := inHand()
			return float64(requests)
		}),
		gauge("fallback_bytes_in_hand", "Bytes that the bodies of the requests in hand take.", func() float64 {
			_, bytes := inHand()
			return float64(bytes)
		}),
		gauge("fallback_broker_connected", "1 if there is a connection to the broker.", func() float64 {
			connected, _ := broker()
			return number(connected)
		}),
		gauge("fallback_broker_blocked", "1 if the broker takes no messages, for want of memory or disk.",
			func() float64 {
				_, blocked := broker()
				return number(blocked)
			}),
	)
}
