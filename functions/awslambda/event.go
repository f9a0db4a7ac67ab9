package awslambda

import (
	"cmp"
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"

	"fallback/functions/platform"
)

// event is what is used of the events that the function is for. The library's own types read all of each event, and one
// field of another shape that nobody needs (a claim of an authorizer's, say) would cost the request.
//
// The first part is payload format 2.0, which Function URLs and HTTP APIs share.
type event struct {
	// RawPath has the stage of an HTTP API before it, unless that is the one without a name. Function URLs hand the
	// path on as the client wrote it; HTTP APIs decode it.
	RawPath        string `json:"rawPath"`
	RawQueryString string `json:"rawQueryString"`
	// Headers have lower-case names and one value each: the platform has joined repeated ones by commas. Cookies are
	// not among them.
	Headers map[string]string `json:"headers"`
	Cookies []string          `json:"cookies"`
	Context struct {
		DomainName string `json:"domainName"`
		Stage      string `json:"stage"`
		HTTP       *struct {
			Method   string `json:"method"`
			Protocol string `json:"protocol"`
			SourceIP string `json:"sourceIp"`
		} `json:"http"`
	} `json:"requestContext"`
	// Body is base64 when IsBase64Encoded says so: for all but text, JSON and the like.
	Body            string `json:"body"`
	IsBase64Encoded bool   `json:"isBase64Encoded"`

	// DetailType tells an event of EventBridge, which has none of the above.
	DetailType string `json:"detail-type"`
}

// scheduled is the DetailType of a schedule, be it a rule of EventBridge or one of the EventBridge Scheduler.
const scheduled = "Scheduled Event"

// unnamed is the stage that is not in the path.
const unnamed = "$default"

// request is the event as a server would have received it. The event must have HTTP.
func (e *event) request(ctx context.Context) (*http.Request, error) {
	in := e.Context.HTTP
	r, err := platform.Request{
		Method: in.Method, Path: e.path(), IsDecoded: true, Query: e.RawQueryString, Headers: e.Headers, Body: e.Body,
		IsBase64: e.IsBase64Encoded,
	}.HTTP(ctx)
	if err != nil {
		return nil, err
	}
	r.RemoteAddr = in.SourceIP
	if major, minor, ok := http.ParseHTTPVersion(in.Protocol); ok {
		r.Proto, r.ProtoMajor, r.ProtoMinor = in.Protocol, major, minor
	}
	if len(e.Cookies) > 0 {
		r.Header["Cookie"] = []string{strings.Join(e.Cookies, "; ")}
	}
	r.Host = cmp.Or(r.Host, e.Context.DomainName)
	return r, nil
}

// path is without the stage.
func (e *event) path() string {
	if stage := e.Context.Stage; stage != "" && stage != unnamed {
		if rest, ok := strings.CutPrefix(e.RawPath, "/"+stage); ok && (rest == "" || rest[0] == '/') {
			return rest
		}
	}
	return e.RawPath
}

// response is the answer as the platform takes it, from Function URLs and from HTTP APIs alike.
func response(answer platform.Answer) events.LambdaFunctionURLResponse {
	out := events.LambdaFunctionURLResponse{StatusCode: answer.Status, Headers: answer.Headers(),
		Body: string(answer.Body)}
	delete(out.Headers, "Set-Cookie") // cannot be joined
	out.Cookies = answer.Header["Set-Cookie"]
	if !utf8.Valid(answer.Body) {
		out.Body, out.IsBase64Encoded = base64.StdEncoding.EncodeToString(answer.Body), true
	}
	return out
}
