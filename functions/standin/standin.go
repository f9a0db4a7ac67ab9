// Package standin is a small API that stands in for the primary where things are tried out: it answers every request,
// in one of a few modes, and shows what has arrived. It asks for no password and keeps nothing on disk.
package standin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"fallback/functions/envelope"
)

// mode is a way in which the API can be told to be.
type mode struct{ name, about string }

var modes = []mode{
	{"up", "every request gets 200"},
	{"down", "every connection is closed without an answer, the drain's probes too"},
	{"slow", "every request gets 200, after 2 seconds"},
	{"limited", "2 requests a second get 200, more get 429 and Retry-After"},
	{"picky", `a body that is no JSON object with an "order" gets 422`},
}

const (
	slowAnswer  = 2 * time.Second
	limitedRate = 2 // requests a second, in bursts of as many
	// controlPrefix is of the paths that are about the API itself.
	controlPrefix = "/_primary/"
	// mostArrivals and mostShown bound what is kept: requests, and bytes of each body. mostRead bounds what is read of
	// a body to judge it.
	mostArrivals, mostShown, mostRead = 100, 200, 1 << 20
)

// Modes says what each is, a line each.
func Modes() string {
	lines := make([]string, len(modes))
	for i, m := range modes {
		lines[i] = fmt.Sprintf("%-8s %s", m.name, m.about)
	}
	return strings.Join(lines, "\n")
}

// arrival is a request that was answered.
type arrival struct {
	At      time.Time `json:"at"`
	Method  string    `json:"method"`
	Target  string    `json:"target"`
	ID      string    `json:"fallback_id,omitempty"`
	Attempt string    `json:"fallback_attempt,omitempty"`
	Body    string    `json:"body,omitempty"` // its first bytes
	Answer  int       `json:"answer"`
}

// API is the one that stands in.
type API struct {
	log     *slog.Logger
	control *http.ServeMux // of controlPrefix

	mu       sync.Mutex // guards the rest
	mode     mode
	limiter  *rate.Limiter
	arrivals []arrival // the last ones, the oldest first; without probes
}

// New returns an API that is up.
func New(log *slog.Logger) *API {
	p := &API{log: log, control: http.NewServeMux(), mode: modes[0]}
	p.control.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ready") })
	p.control.HandleFunc("GET "+controlPrefix+"mode", func(w http.ResponseWriter, _ *http.Request) { p.tellMode(w) })
	p.control.HandleFunc("PUT "+controlPrefix+"mode", p.setMode)
	p.control.HandleFunc("GET "+controlPrefix+"requests", p.tellArrivals)
	return p
}

// Run serves at the address until ctx ends, and then finishes what it has begun. The error is of the address, or of
// serving.
func (p *API) Run(ctx context.Context, address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("--addr: %w", err)
	}
	p.log.Info("a primary for trying things out, not for production", "addr", listener.Addr().String(), "mode",
		p.mode.name)
	const bound = 30 * time.Second
	server := &http.Server{Handler: p, ReadTimeout: bound, WriteTimeout: bound, IdleTimeout: 2 * bound}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve HTTP: %w", err)
	case <-ctx.Done():
	}
	timed, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*slowAnswer)
	defer cancel()
	err = server.Shutdown(timed)
	<-failed // it has ended with the listener
	return err
}

// ServeHTTP keeps replays away from the mux, which would redirect a path like /a//b to a tidier one.
func (p *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, controlPrefix) || r.Method == http.MethodGet && r.URL.Path == "/readyz" {
		p.control.ServeHTTP(w, r)
		return
	}
	p.answer(w, r)
}

// Be changes the mode. The error lists those that there are.
func (p *API) Be(name string) error {
	var names []string
	for _, m := range modes {
		if m.name == name {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.mode, p.limiter = m, rate.NewLimiter(limitedRate, limitedRate)
			return nil
		}
		names = append(names, m.name)
	}
	return fmt.Errorf("no such mode: %.40q; there are %s", name, strings.Join(names, ", "))
}

func (p *API) setMode(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<10))
	if err == nil {
		err = p.Be(strings.TrimSpace(string(body)))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.tellMode(w)
}

func (p *API) tellMode(w http.ResponseWriter) {
	p.mu.Lock()
	m := p.mode
	p.mu.Unlock()
	fmt.Fprintf(w, "%s: %s\n", m.name, m.about)
}

func (p *API) tellArrivals(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	got := append([]arrival{}, p.arrivals...) // none is [], not null
	p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	_ = out.Encode(got)
}

// answer answers what is meant for an API.
func (p *API) answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, mostRead))
	if err != nil {
		panic(http.ErrAbortHandler) // the sender is gone
	}
	a := arrival{
		At: time.Now().UTC(), Method: r.Method, Target: r.RequestURI, Body: string(body[:min(len(body), mostShown)]),
		ID: r.Header.Get(envelope.HeaderID), Attempt: r.Header.Get(envelope.HeaderAttempt), Answer: http.StatusOK,
	}
	log := p.log.With("method", a.Method, "target", a.Target, "id", a.ID, "attempt", a.Attempt)
	probe := r.UserAgent() == envelope.ProbeUserAgent

	p.mu.Lock()
	m := p.mode
	tooMany := m.name == "limited" && !probe && !p.limiter.Allow()
	p.mu.Unlock()
	switch {
	case m.name == "down":
		log.Info("closed")
		panic(http.ErrAbortHandler) // net/http closes the connection
	case m.name == "slow":
		time.Sleep(slowAnswer)
	case tooMany:
		w.Header().Set("Retry-After", "1")
		a.Answer = http.StatusTooManyRequests
	case m.name == "picky" && !probe && !hasOrder(body):
		a.Answer = http.StatusUnprocessableEntity
	}
	if !probe {
		p.mu.Lock()
		p.arrivals = append(p.arrivals[max(0, len(p.arrivals)-mostArrivals+1):], a)
		p.mu.Unlock()
	}
	log.Info("answered", "answer", a.Answer)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(a.Answer)
	fmt.Fprintf(w, "%s (%s: %s)\n", http.StatusText(a.Answer), m.name, m.about)
}

// hasOrder says whether a body is what the picky one wants.
func hasOrder(body []byte) bool {
	var object map[string]json.RawMessage
	return json.Unmarshal(body, &object) == nil && len(object["order"]) > 0
}
