package envelope

import (
	"context"
	"net/http"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTrailersThatCannotBeSent holds that no trailer keeps a request from being sent: net/http's server lets in more
// of them than its client sends.
func TestTrailersThatCannotBeSent(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name       string
		came, want http.Header
		length     int64
	}{
		{"announced, and never came", http.Header{"X-Sum": nil, `"`: {}}, nil, 3},
		{"a control character", http.Header{"X-Sum": {"1\x00"}, "X-Count": {"2\t\xff"}},
			http.Header{"X-Count": {"2\t\xff"}}, -1},
		{"a name that is none", http.Header{"X-Sum ": {"1"}, "": {"2"}, "X\xe9": {"3"}, "X_*": {"4"}},
			http.Header{"X_*": {"4"}}, -1},
		{"one value of two", http.Header{"X-Sum": {"a", "\x7f"}}, nil, 3},
		{"of one connection only", http.Header{"Te": {"trailers"}}, nil, 3},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			r := &Request{Method: "POST", Target: "/", Trailer: row.came, Body: []byte("abc")}
			out, err := r.HTTP(context.Background(), &url.URL{Scheme: "http", Host: "api.example.com"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, out.Trailer); diff != "" || out.ContentLength != row.length {
				t.Errorf("length %d, want %d; -want +got:\n%s", out.ContentLength, row.length, diff)
			}
		})
	}
}
