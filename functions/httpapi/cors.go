package httpapi

import (
	"net/http"
	"slices"
	"strings"

	"fallback/functions/envelope"
)

// cors lets pages of allowed origins read the answer, whatever it is: else a browser keeps even the status from them.
// Credentials are never allowed: a browser's cookies let nobody in.
func (d *Door) cors(answer, request http.Header) {
	if len(d.options.CORSOrigins) == 0 {
		return
	}
	answer.Add("Vary", "Origin")
	origin := request.Get("Origin")
	if origin == "" || !slices.Contains(d.options.CORSOrigins, "*") && !slices.Contains(d.options.CORSOrigins, origin) {
		return
	}
	answer.Set("Access-Control-Allow-Origin", origin)
	answer.Set("Access-Control-Expose-Headers", envelope.HeaderID+", Retry-After")
}

// isPreflight says whether a browser asks if a page of an allowed origin may send (Fetch Standard, 4.8). The answer has
// been through cors, which knows the origins.
func isPreflight(answer http.Header, r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" &&
		answer.Get("Access-Control-Allow-Origin") != ""
}

// preflight says yes to the methods that are queued and to any header, and lets the browser remember it for ten
// minutes.
func preflight(w http.ResponseWriter, r *http.Request, methods []string) (outcome string) {
	h := w.Header()
	h.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
	h.Set("Access-Control-Allow-Methods", strings.Join(methods, ", "))
	if names := r.Header["Access-Control-Request-Headers"]; len(names) > 0 {
		h.Set("Access-Control-Allow-Headers", strings.Join(names, ", "))
	}
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return Preflight
}
