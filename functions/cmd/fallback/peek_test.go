package main

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"fallback/functions/operator"
)

// TestPeekedBody holds that every byte of a body can be had from the JSON, and that a terminal gets no bytes that are
// no text.
func TestPeekedBody(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, body string
		text       bool
	}{
		{"none", "", true},
		{"text", "{\"a\":\"<&>\"}\n", true},
		{"beyond ASCII", "Zürich \u2028 \U0001F600", true},
		{"control characters", "\x00\x1b[2J\x7f", true},
		{"the sign for what cannot be shown", "\uFFFD", true},
		{"what looks like base64", "AAAA", true},
		{"Latin-1", "Z\xfcrich", false},
		{"gzip", "\x1f\x8b\x08\x00", false},
		{"cut in a character", "\xe2\x82", false},
		{"a surrogate", "\xed\xa0\x80", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			shown := operator.Peeked{ID: "the-id", BodyBytes: len(row.body)}
			shown.SetBody([]byte(row.body))
			raw, err := json.Marshal(shown)
			if err != nil {
				t.Fatal(err)
			}
			var read struct {
				Body     string `json:"body"`
				IsBase64 bool   `json:"is_base64_encoded"`
			}
			if err := json.Unmarshal(raw, &read); err != nil {
				t.Fatal(err)
			}
			got := read.Body
			if read.IsBase64 {
				decoded, err := base64.StdEncoding.DecodeString(read.Body)
				if err != nil {
					t.Fatal(err)
				}
				got = string(decoded)
			}
			if got != row.body || read.IsBase64 == row.text {
				t.Errorf("got %q, %s, want %q", got, raw, row.body)
			}
			var out strings.Builder
			if err := printPeeked(&out, []operator.Peeked{shown}, operator.Full); err != nil {
				t.Fatal(err)
			}
			if strings.ContainsAny(out.String(), "\x00\x1b\x7f") ||
				strings.Contains(out.String(), "that are no text") == row.text {
				t.Errorf("printed %q", out.String())
			}
		})
	}
}
