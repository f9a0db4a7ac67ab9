package deploy

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"strings"
)

// webEvent is the `http` object of a `web: raw` event.
type webEvent struct {
	Method string `json:"method"`
	// what follows the function's name, as it was escaped; "" if nothing does
	Path            string            `json:"path"`
	QueryString     string            `json:"queryString"`
	Headers         map[string]string `json:"headers"`
	Body            string            `json:"body"`
	IsBase64Encoded bool              `json:"isBase64Encoded"`
}

// event is what the function is invoked with: its parameters and the request.
func (f *Function) event(r *http.Request, path string, body []byte) (json.RawMessage, error) {
	text, encoded := eventBody(r.Header.Get("Content-Type"), body)
	event := map[string]any{}
	maps.Copy(event, f.config.Parameters)
	event["http"] = webEvent{
		Method:          r.Method,
		Path:            path,
		QueryString:     r.URL.RawQuery,
		Headers:         eventHeaders(r),
		Body:            text,
		IsBase64Encoded: encoded,
	}
	return marshal(event)
}

// marshal writes JSON on one line, and < > & as they are: escaped they would count six times against the limit.
func marshal(value any) (json.RawMessage, error) {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(line.Bytes(), []byte("\n")), nil
}

// eventBody is base64 for binary types and for application/json. Anything else is read as UTF-8 whatever its charset
// says, so other bytes are lost: each becomes U+FFFD.
func eventBody(contentType string, body []byte) (text string, encoded bool) {
	media, err := parseMedia(contentType)
	switch {
	case len(body) == 0:
		return "", false
	case err != nil, media.binary(), media.name == "application/json":
		return base64.StdEncoding.EncodeToString(body), true
	}
	return string([]rune(string(body))), false
}

// connectionHeaders belong to the client's connection to the platform and do not reach the function.
var connectionHeaders = []string{"connection", "content-length", "expect", "keep-alive", "proxy-connection", "te",
	"trailer", "transfer-encoding", "upgrade"}

// eventHeaders has lower-case names, one value for each, repeated ones joined, and the platform's own.
func eventHeaders(r *http.Request) map[string]string {
	headers := map[string]string{}
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	for _, name := range connectionHeaders {
		delete(headers, name)
	}
	headers["host"] = r.Host
	headers["x-forwarded-for"] = forwardedFor(headers["x-forwarded-for"], r.RemoteAddr)
	headers["x-forwarded-proto"] = "https"
	headers["x-request-id"] = newID()
	return headers
}

func forwardedFor(earlier, remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	if earlier == "" {
		return host
	}
	return earlier + ", " + host
}
