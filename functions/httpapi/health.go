package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// asksAboutServer says whether a request is about the server itself.
func asksAboutServer(r *http.Request) bool {
	return serverPath(r, originForm(r.RequestURI)) != ""
}

// serverPath is the path of a request that is about the server itself; "" for any other.
func serverPath(r *http.Request, uri string) string {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return ""
	}
	switch path, _, _ := strings.Cut(uri, "?"); path {
	case "/livez", "/readyz", "/metrics":
		return path
	}
	return ""
}

// readyz is about the broker: connected, not blocked, the queue there and of the right type. It says nothing of the
// primary, whose failure is what this is for.
func (d *Door) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), d.options.Timeout)
	defer cancel()
	if err := d.queue.Ready(ctx); err != nil {
		unavailable(err, "Not ready").Write(w)
		return
	}
	Ready(w)
}

// Live says that a process lives, a server's or a worker's: it answers.
func Live(w http.ResponseWriter) { healthy(w, "live") }

// Ready says that it can do its work.
func Ready(w http.ResponseWriter) { healthy(w, "ready") }

func healthy(w http.ResponseWriter, status string) {
	h := w.Header()
	h["Content-Type"] = contentTypeJSON
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(healthBody(status))
}

func healthBody(status string) []byte { return []byte(`{"status":"` + status + `"}` + "\n") }

// IsHealth says whether a body is that of [Live] or [Ready].
func IsHealth(body []byte) bool {
	return bytes.Equal(body, healthBody("live")) || bytes.Equal(body, healthBody("ready"))
}

// ErrAddress says that an address is not host:port.
var ErrAddress = errors.New("not host:port")

// Ask asks the server that listens at address on this host for a path, by no proxy: it is about this very server. The
// address is as FALLBACK_ADDR has it. The error wraps [ErrAddress], or says why there is no answer.
func Ask(ctx context.Context, address, path string) (*http.Response, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAddress, err)
	}
	if host == "" || net.ParseIP(host).IsUnspecified() {
		host = "localhost"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAddress, err)
	}
	return (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
}
