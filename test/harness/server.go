package harness

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"sync"
	"testing"

	"fallback/functions/app"
	"fallback/functions/config"
	"fallback/functions/metrics"
	"fallback/functions/topology"
)

// Server is `fallback serve` as a value in the test's process.
type Server struct {
	// URL is the base: http://127.0.0.1:port.
	URL string
	// Addr is its host:port.
	Addr string
	// Log is what it logged, as text.
	Log *Log
	// Stop ends it as SIGTERM would and waits for the end; the test's end does so too.
	Stop func() error
}

// Settings are environment variables over the harness's own.
type Settings map[string]string

// load reads the settings, with those of over in place of their like.
func (s Settings) load(t testing.TB, over Settings) config.Config {
	t.Helper()
	for name, value := range over {
		s[name] = value
	}
	c, err := config.Load(func(name string) (string, bool) { value, ok := s[name]; return value, ok },
		"AMQP_SERVER_URL")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Serve starts a server on the virtual host as the publisher's user.
func (v *VHost) Serve(t testing.TB, settings Settings) *Server {
	t.Helper()
	env := Settings{
		"AMQP_SERVER_URL":         v.URL(topology.Publisher),
		"RABBITMQ_MANAGEMENT_URL": v.ManagementURL(topology.Monitor),
		"FALLBACK_ADDR":           "127.0.0.1:0",
		"LOG_LEVEL":               "debug",
	}
	c := env.load(t, settings)
	log := &Log{}
	server, err := app.NewServer(c, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: c.LogLevel})),
		metrics.NewServer(c))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
		if t.Failed() {
			t.Logf("the server's log:\n%s", log)
		}
	})
	addr := server.Addr().String()
	return &Server{URL: "http://" + addr, Addr: addr, Log: log, Stop: stop}
}

// WaitReady waits until /readyz says so.
func (s *Server) WaitReady(t testing.TB) {
	t.Helper()
	Eventually(t, "the server to be ready", func() bool {
		response, err := http.Get(s.URL + "/readyz")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

// Log collects what is written; it is safe for concurrent use.
type Log struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
