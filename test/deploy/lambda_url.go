package deploy

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// ServeHTTP is the Function URL, or the HTTP API in front of the function when it has a stage: it makes an event in
// payload format 2.0, invokes, and makes the answer of the result.
func (l *Lambda) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 2*lambdaLimit))
	if err != nil {
		urlRefusal(http.StatusBadRequest, "Bad Request").write(w)
		return
	}
	event, err := l.event(r, body)
	switch {
	case err != nil:
		urlRefusal(http.StatusBadRequest, "Bad Request").write(w)
		return
	case len(event) > lambdaLimit:
		urlRefusal(http.StatusRequestEntityTooLarge,
			fmt.Sprintf("Request must be smaller than %d bytes for the InvokeFunction operation", lambdaLimit)).write(w)
		return
	}
	result, err := l.Invoke(r.Context(), event)
	if err != nil {
		urlRefusal(http.StatusBadGateway, "Internal Server Error").write(w)
		return
	}
	urlAnswer(result).write(w)
}

func urlRefusal(status int, message string) answer {
	body, _ := marshal(map[string]string{"Message": message})
	return answer{status, http.Header{"Content-Type": {"application/json"}}, body}
}

// event is the request in payload format 2.0.
func (l *Lambda) event(r *http.Request, body []byte) (json.RawMessage, error) {
	path, query, _ := strings.Cut(r.RequestURI, "?")
	stage := "$default"
	if l.config.Stage != "" { // an HTTP API: it decodes the path and puts the stage before it
		stage = l.config.Stage
		decoded, err := url.PathUnescape(path)
		if err != nil {
			return nil, err
		}
		path = "/" + stage + decoded
	}
	remote, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	text, encoded := urlBody(r.Header, body)
	event := map[string]any{
		"version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": query,
		"headers": urlHeaders(r, remote),
		"requestContext": map[string]any{
			"accountId": "anonymous", "apiId": "abcdefghij", "domainName": r.Host,
			"domainPrefix": strings.SplitN(r.Host, ".", 2)[0],
			"http": map[string]string{"method": r.Method, "path": path, "protocol": r.Proto, "sourceIp": remote,
				"userAgent": r.UserAgent()},
			"requestId": newID(), "routeKey": "$default", "stage": stage,
			"time": now.Format("02/Jan/2006:15:04:05 -0700"), "timeEpoch": now.UnixMilli(),
		},
		"isBase64Encoded": encoded,
	}
	if text != "" {
		event["body"] = text
	}
	if cookies := r.Header.Values("Cookie"); len(cookies) > 0 {
		event["cookies"] = strings.Split(strings.Join(cookies, "; "), "; ")
	}
	return marshal(event)
}

// urlBody is text for the few types that are known to be, and base64 otherwise. What happens to text that is not UTF-8
// is not documented; here it is damaged, which is the worst.
func urlBody(header http.Header, body []byte) (text string, encoded bool) {
	contentType, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	contentType = strings.ToLower(strings.TrimSpace(contentType))
	switch contentType {
	case "application/json", "application/javascript", "application/xml":
	default:
		if !strings.HasPrefix(contentType, "text/") {
			return base64.StdEncoding.EncodeToString(body), len(body) > 0
		}
	}
	if header.Get("Content-Encoding") != "" {
		return base64.StdEncoding.EncodeToString(body), len(body) > 0
	}
	return string([]rune(string(body))), false
}

// urlHeaders has lower-case names, one value for each, repeated ones joined, no cookies, and the platform's own.
func urlHeaders(r *http.Request, remote string) map[string]string {
	headers := map[string]string{}
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ",")
	}
	for _, name := range connectionHeaders {
		delete(headers, name)
	}
	delete(headers, "cookie")
	if r.ContentLength >= 0 {
		headers["content-length"] = strconv.FormatInt(r.ContentLength, 10)
	}
	headers["host"] = r.Host
	headers["x-amzn-trace-id"] = "Root=1-" + newID()[:8] + "-" + newID()[:24]
	headers["x-forwarded-for"] = forwardedFor(headers["x-forwarded-for"], remote)
	headers["x-forwarded-port"] = "443"
	headers["x-forwarded-proto"] = "https"
	return headers
}

// urlAnswer makes the answer of a result: of one with a statusCode what it says, of any other JSON the JSON itself,
// and of what it cannot read a 502.
func urlAnswer(result []byte) answer {
	var raw map[string]json.RawMessage
	if !json.Valid(result) {
		return urlRefusal(http.StatusBadGateway, "Internal Server Error")
	}
	if json.Unmarshal(result, &raw) != nil || raw["statusCode"] == nil {
		return answer{http.StatusOK, http.Header{"Content-Type": {"application/json"}}, result}
	}
	var out struct {
		StatusCode      int
		Headers         map[string]string
		Body            string
		IsBase64Encoded bool
		Cookies         []string
	}
	if err := json.Unmarshal(result, &out); err != nil || out.StatusCode < 100 || out.StatusCode > 599 {
		return urlRefusal(http.StatusBadGateway, "Internal Server Error")
	}
	body := []byte(out.Body)
	if out.IsBase64Encoded {
		var err error
		if body, err = base64.StdEncoding.DecodeString(out.Body); err != nil {
			return urlRefusal(http.StatusBadGateway, "Internal Server Error")
		}
	}
	header := http.Header{"Content-Type": {"application/json"}}
	for name, value := range out.Headers {
		header.Set(name, value)
	}
	for _, name := range connectionHeaders {
		header.Del(name)
	}
	for _, cookie := range out.Cookies {
		header.Add("Set-Cookie", cookie)
	}
	return answer{out.StatusCode, header, body}
}
