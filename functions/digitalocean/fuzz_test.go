package digitalocean

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// FuzzActionLoop holds that whatever lines come in, each is answered by one line with one JSON object, and ends the
// log of both streams once: an answer too few or too many would be another request's.
func FuzzActionLoop(f *testing.F) {
	f.Add([]byte(`{"value":{"http":{"method":"POST","path":"/a","headers":{"host":"h"},"body":"e30=","isBase64Encoded":true}},"deadline":"4102444800000"}` + "\n"))
	f.Add([]byte(`{"value":{"http":{"body":"` + sentinel + `\n"}},"deadline":"0"}` + "\n{}\n\nnull\n"))
	f.Add([]byte(`{"value":[],"deadline":1}` + "\r\n" + `{"value"`))
	f.Add([]byte(`{"value":{},"deadline":"9223372036854775807"}` + "\n"))
	door := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI == "/panic" {
			panic("boom")
		}
		_, _ = io.Copy(w, r.Body)
	})
	main := untyped(func(ctx context.Context, e Event) Response { return Handle(ctx, door, e) })
	f.Fuzz(func(t *testing.T, in []byte) {
		var out, stdout, stderr bytes.Buffer
		loop := actionLoop{main: main, in: bytes.NewReader(in), out: &out, logs: []io.Writer{&stdout, &stderr}}
		if err := loop.run(); err != nil {
			t.Fatal(err)
		}
		want := bytes.Count(in, []byte("\n"))
		answers := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if answers[0] != `{"ok":true}` || len(answers)-1 != want {
			t.Fatalf("%d lines were answered by %q", want, answers)
		}
		for _, answer := range answers[1:] {
			var response struct{ StatusCode int }
			if err := json.Unmarshal([]byte(answer), &response); err != nil || response.StatusCode < 200 {
				t.Errorf("%v: %s", err, answer)
			}
		}
		ends := strings.Repeat(sentinel+"\n", want)
		if stdout.String() != ends || stderr.String() != ends {
			t.Errorf("the logs hold %q and %q, want %d ends each", &stdout, &stderr, want)
		}
	})
}
