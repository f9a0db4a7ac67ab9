package httpapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestStrangersFirst holds that a stranger hears that a key is needed, and nothing of the door's limits.
func TestStrangersFirst(t *testing.T) {
	t.Parallel()
	o := options()
	o.Tokens, o.Limits.Body = []string{"sesame"}, 4
	d, err := New(o, store{})
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]int{"": http.StatusUnauthorized, "sesame": http.StatusRequestEntityTooLarge} {
		r := httptest.NewRequest(http.MethodPost, "/fallback", strings.NewReader("too large"))
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		if d.ServeHTTP(w, r); w.Code != want {
			t.Errorf("with the token %q: got %d, want %d", token, w.Code, want)
		}
	}
}
