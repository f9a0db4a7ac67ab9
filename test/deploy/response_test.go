package deploy_test

import (
	"encoding/json"
	"slices"
	"testing"
)

const badHTTP = "Response is not valid 'message/http'."

// Each row is a result and the answer that the gateway makes of it.
func TestResultBecomesAnswer(t *testing.T) {
	t.Parallel()
	url := front(t, start(t, "say"))
	for _, row := range []struct {
		name, result string
		status       int
		contentType  string
		body         string
		refused      string // the platform's message, instead of the body
	}{
		{name: "nothing", result: `{}`, status: 204},
		{name: "no body", result: `{"statusCode":202}`, status: 202},
		{name: "empty body drops the type", result: `{"statusCode":202,"headers":{"content-type":"application/json"},"body":""}`, status: 202},
		{name: "empty body", result: `{"body":""}`, status: 204},
		{name: "null body", result: `{"body":null}`, status: 204},
		{name: "string is html", result: `{"body":"hi"}`, status: 200, contentType: "text/html; charset=UTF-8",
			body: "hi"},
		{name: "text", result: `{"headers":{"Content-Type":"text/plain"},"body":"h\u00e9"}`, status: 200,
			contentType: "text/plain; charset=UTF-8", body: "hé"},
		{name: "text is UTF-8 whatever it says",
			result: `{"headers":{"Content-Type":"text/plain; charset=latin1"},"body":"é"}`, status: 200,
			contentType: "text/plain; charset=UTF-8", body: "é"},
		{name: "json text", result: `{"statusCode":503,"headers":{"Content-Type":"application/json"},"body":"{\"a\":1}"}`, status: 503, contentType: "application/json", body: `{"a":1}`},
		{name: "problem+json text", result: `{"statusCode":503,"headers":{"Content-Type":"application/problem+json"},"body":"{\"a\":1}"}`, status: 503, contentType: "application/problem+json", body: `{"a":1}`},
		{name: "json text that looks like base64",
			result: `{"headers":{"Content-Type":"application/json"},"body":"true"}`, status: 200,
			contentType: "application/json", body: "\xb6\xbb\x9e"},
		{name: "json text that does not", result: `{"headers":{"Content-Type":"application/json"},"body":"false"}`,
			status: 200, contentType: "application/json", body: "false"},
		{name: "json text with padding", result: `{"headers":{"Content-Type":"application/json"},"body":"aGk="}`,
			status: 200, contentType: "application/json", body: "hi"},
		{name: "object", result: `{"body":{"a":[1,"<"]}}`, status: 200, contentType: "application/json",
			body: `{"a":[1,"<"]}`},
		{name: "array", result: `{"body":[1]}`, status: 200, contentType: "application/json", body: `[1]`},
		{name: "number body", result: `{"body":1}`, status: 200, contentType: "application/json", body: `1`},
		{name: "object with a json type", result: `{"headers":{"Content-Type":"application/x+json"},"body":{}}`,
			status: 200, contentType: "application/x+json", body: `{}`},
		{name: "object with another type", result: `{"headers":{"Content-Type":"text/plain"},"body":{}}`, status: 400,
			refused: "Response type in header did not match generated content type."},
		{name: "binary", result: `{"headers":{"Content-Type":"image/png"},"body":"iVBORw=="}`, status: 200,
			contentType: "image/png", body: "\x89PNG"},
		{name: "binary without padding", result: `{"headers":{"Content-Type":"image/png"},"body":"iVBORw"}`,
			status: 200, contentType: "image/png", body: "\x89PNG"},
		{name: "binary that does not decode", result: `{"headers":{"Content-Type":"image/png"},"body":"not base64!"}`,
			status: 400, refused: "Response type in header did not match generated content type."},
		{name: "binary with line ends", result: `{"headers":{"Content-Type":"image/png"},"body":"iVBO\nRw=="}`,
			status: 400, refused: "Response type in header did not match generated content type."},
		{name: "a +json nobody knows is binary",
			result: `{"headers":{"Content-Type":"application/hal+json"},"body":"{}"}`, status: 400,
			refused: "Response type in header did not match generated content type."},
		{name: "unless it has a charset", result: `{"headers":{"Content-Type":"application/hal+json; charset=utf-8"},"body":"{}"}`, status: 200, contentType: "application/hal+json; charset=UTF-8", body: "{}"},
		{name: "not a type", result: `{"headers":{"Content-Type":"json"},"body":"{}"}`, status: 400,
			refused: "Response did not specify a known content-type."},

		{name: "status as a string", result: `{"statusCode":"201","body":"x"}`, status: 201,
			contentType: "text/html; charset=UTF-8", body: "x"},
		{name: "status as a whole float", result: `{"statusCode":201.0}`, status: 201},
		{name: "status as a fraction", result: `{"statusCode":200.5}`, status: 400, refused: badHTTP},
		{name: "status as a word", result: `{"statusCode":"ok"}`, status: 400, refused: badHTTP},
		{name: "status null", result: `{"statusCode":null}`, status: 400, refused: badHTTP},
		{name: "status true", result: `{"statusCode":true}`, status: 400, refused: badHTTP},
		{name: "status nobody registered", result: `{"statusCode":299}`, status: 400, refused: badHTTP},
		{name: "status 0", result: `{"statusCode":0}`, status: 400, refused: badHTTP},
		{name: "204 with a body", result: `{"statusCode":204,"body":"x"}`, status: 500,
			refused: "There was an internal server error."},

		{name: "headers null", result: `{"headers":null,"body":"x"}`, status: 400, refused: badHTTP},
		{name: "headers a list", result: `{"headers":[],"body":"x"}`, status: 400, refused: badHTTP},
		{name: "header null", result: `{"headers":{"X":null}}`, status: 400, refused: badHTTP},
		{name: "header an object", result: `{"headers":{"X":{}}}`, status: 400, refused: badHTTP},
		{name: "header null in an array", result: `{"headers":{"X":["a",null]}}`, status: 400, refused: badHTTP},

		{name: "error", result: `{"error":"boom"}`, status: 400, refused: badHTTP},
		{name: "error null", result: `{"error":null,"statusCode":200}`, status: 400, refused: badHTTP},
		{name: "error beside an answer", result: `{"error":"boom","statusCode":200,"body":"x"}`, status: 400,
			refused: badHTTP},
		{name: "error that is an answer", result: `{"error":{"statusCode":503,"body":"later"}}`, status: 503,
			contentType: "text/html; charset=UTF-8", body: "later"},
	} {
		t.Run(row.name, func(t *testing.T) {
			resp, body := send(t, request(t, "POST", url, row.result, "Content-Type", "text/plain"))
			if row.refused != "" {
				body, row.body, row.contentType = refusal(t, body), row.refused, "application/json"
			}
			if resp.StatusCode != row.status || body != row.body || resp.Header.Get("Content-Type") != row.contentType {
				t.Errorf("got %d, %q, %q\nwant %d, %q, %q", resp.StatusCode, resp.Header.Get("Content-Type"), body,
					row.status, row.contentType, row.body)
			}
			if len(resp.Header.Get("X-Openwhisk-Activation-Id")) != 32 ||
				resp.Header.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("the platform's own headers: %v", resp.Header)
			}
		})
	}
}

// refusal is the message in an answer of the platform's own.
func refusal(t *testing.T, body string) string {
	t.Helper()
	var message struct{ Code, Error string }
	if err := json.Unmarshal([]byte(body), &message); err != nil || message.Code == "" {
		t.Errorf("got %q, want the platform's own error", body)
	}
	return message.Error
}

func TestHeaderValuesMayBeOfManyKinds(t *testing.T) {
	t.Parallel()
	url := front(t, start(t, "say"))
	result := `{"headers":{"X-String":"a b","X-Number":1.50,"X-Bool":true,"Set-Cookie":["a=1","b=2",3],"X-None":[],"Connection":"close","Content-Length":9}}`
	resp, _ := send(t, request(t, "POST", url, result, "Content-Type", "text/plain"))
	for name, want := range map[string][]string{
		"X-String": {"a b"}, "X-Number": {"1.50"}, "X-Bool": {"true"}, "Set-Cookie": {"a=1", "b=2", "3"}, "X-None": nil,
		"Connection": nil, "Content-Length": nil,
	} {
		if got := resp.Header.Values(name); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestJSONShowsTheResult(t *testing.T) {
	t.Parallel()
	url := front(t, start(t, "say"))
	for result, want := range map[string]string{
		`{"statusCode":503,"body":"x"}`: `{"statusCode":503,"body":"x"}`,
		`{"error":{"a":1}}`:             `{"a":1}`,
	} {
		if resp, got := send(t, request(t, "POST", url+".json", result, "Content-Type",
			"text/plain")); resp.StatusCode != 200 || got != want {
			t.Errorf("got %s %s, want %s", resp.Status, got, want)
		}
	}
	if resp, body := send(t, request(t, "POST", url+".json", `{"error":"boom"}`, "Content-Type",
		"text/plain")); resp.StatusCode != 400 {
		t.Errorf("got %s %s", resp.Status, body)
	}
}
