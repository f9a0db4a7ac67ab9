package httpapi

import (
	"context"
	"net/http"
	"testing"

	"fallback/functions/envelope"
)

// TestCORS holds that a page of an allowed origin may ask, send and read every answer, errors too, and that another
// may not.
func TestCORS(t *testing.T) {
	t.Parallel()
	const shop = "https://shop.example.com"
	ask := func(method, uri, body string) *http.Request {
		r := request(method, uri, body)
		if method == "OPTIONS" {
			r.Header.Set("Access-Control-Request-Method", "POST")
			r.Header.Set("Access-Control-Request-Headers", "content-type,fallback-authorization")
		}
		return r
	}
	broken := store{publish: func(context.Context, *envelope.Request) error { return failure{"queue-full", "full"} }}
	panics := store{publish: func(context.Context, *envelope.Request) error { panic("on purpose") }}
	for _, row := range []struct {
		name, origin string
		origins      []string
		request      *http.Request
		store        store
		status       int
		problem      string
		allowed      bool
	}{
		{"a question", shop, []string{shop}, ask("OPTIONS", "/fallback/orders", ""), store{}, 204, "", true},
		{"a question, of the second origin", "http://localhost:3000", []string{shop, "http://localhost:3000"},
			ask("OPTIONS", "/fallback", ""), store{}, 204, "", true},
		{"a question, where all are allowed", "https://other.example.com", []string{"*"},
			ask("OPTIONS", "/fallback", ""), store{}, 204, "", true},
		{"a question of another", "https://other.example.com", []string{shop}, ask("OPTIONS", "/fallback", ""), store{},
			503, "method-not-queued", false},
		{"a question, without the setting", shop, nil, ask("OPTIONS", "/fallback", ""), store{}, 503,
			"method-not-queued", false},
		{"OPTIONS that is no question", shop, []string{shop}, request("OPTIONS", "/fallback", ""), store{}, 503,
			"method-not-queued", true},
		{"stored", shop, []string{shop}, ask("POST", "/fallback", "x"), store{}, 202, "", true},
		{"stored for another", "https://other.example.com", []string{shop}, ask("POST", "/fallback", "x"), store{}, 202,
			"", false},
		{"stored for who is no page", "", []string{shop}, ask("POST", "/fallback", "x"), store{}, 202, "", false},
		{"not stored", shop, []string{shop}, ask("POST", "/fallback", "x"), broken, 503, "queue-full", true},
		{"too large", shop, []string{shop}, ask("POST", "/fallback", "0123456789abcdefg"), store{}, 413,
			"body-too-large", true},
		{"elsewhere", shop, []string{shop}, ask("POST", "/", "x"), store{}, 404, "not-found", true},
		{"a bug", shop, []string{shop}, ask("POST", "/fallback", "x"), panics, 500, "internal", true},
		{"ready", shop, []string{shop}, ask("GET", "/readyz", ""), store{}, 200, "", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			o := options()
			o.CORSOrigins = row.origins
			if row.origin != "" {
				row.request.Header.Set("Origin", row.origin)
			}
			w := serve(door(t, o, row.store), row.request)
			checkAnswer(t, w, row.status, row.problem)
			want := map[string]string{"Access-Control-Allow-Credentials": "", "Access-Control-Allow-Methods": "",
				"Access-Control-Allow-Headers": "", "Vary": "Origin"}
			if row.origins == nil {
				want["Vary"] = ""
			}
			want["Access-Control-Allow-Origin"], want["Access-Control-Expose-Headers"] = "", ""
			if row.allowed {
				want["Access-Control-Allow-Origin"], want["Access-Control-Expose-Headers"] = row.origin,
					"Fallback-Id, Retry-After"
			}
			if row.status == 204 {
				want["Access-Control-Allow-Methods"], want["Access-Control-Allow-Headers"] = "POST, PUT",
					"content-type,fallback-authorization"
			}
			for name, want := range want {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
		})
	}
}
