package httpapi

import (
	"context"
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
	_, _ = w.Write([]byte(`{"status":"` + status + `"}` + "\n"))
}
