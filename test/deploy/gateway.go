package deploy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// payloadLimit is the platform's bound for an event and for a result, 1 MB. A base64 body grows by a third before it is
// counted.
const payloadLimit = 1 << 20

// Route is the function's path on the platform. What follows it in a request's path is the event's path.
func (f *Function) Route() string {
	return "/api/v1/web/" + namespace + "/" + f.config.Name
}

// ServeHTTP is the web gateway: it makes the event, invokes, and makes the answer of the result. An invocation goes on
// when its client has left, and when it was answered with a 202 because it took longer than Config.Blocking.
func (f *Function) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, render, ok := f.match(r.URL.EscapedPath())
	switch {
	case !ok:
		refusal(http.StatusNotFound, "The requested resource does not exist.").write(w)
		return
	case !allowed(r.Method):
		refusal(http.StatusMethodNotAllowed, "HTTP method not allowed, supported methods: "+methods).write(w)
		return
	}
	allowAnyOrigin(w.Header(), r)
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusOK) // not even shown to the function
		return
	}
	f.handle(r, path, render).write(w)
}

const methods = "OPTIONS, GET, DELETE, POST, PUT, HEAD, PATCH"

func allowed(method string) bool {
	for known := range strings.SplitSeq(methods, ", ") {
		if method == known {
			return true
		}
	}
	return false
}

// allowAnyOrigin adds the CORS headers that every answer of a web function has.
func allowAnyOrigin(h http.Header, r *http.Request) {
	headers := "Authorization, Origin, X-Requested-With, Content-Type, Accept, User-Agent"
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", methods)
	h.Set("Access-Control-Allow-Headers", cmp.Or(r.Header.Get("Access-Control-Request-Headers"), headers))
}

// match finds the function in a path. An extension of its name says how the result is rendered; the platform knows
// .html, .svg and .text too, which nobody wants here.
func (f *Function) match(path string) (rest string, render func(json.RawMessage) answer, ok bool) {
	rest, ok = strings.CutPrefix(path, f.Route())
	if !ok || f.config.Web != "raw" {
		return "", nil, false
	}
	render = asHTTP
	if after, found := strings.CutPrefix(rest, ".json"); found {
		rest, render = after, asJSON
	} else if after, found := strings.CutPrefix(rest, ".http"); found {
		rest = after
	}
	return rest, render, rest == "" || rest[0] == '/'
}

func (f *Function) handle(r *http.Request, path string, render func(json.RawMessage) answer) answer {
	body, err := io.ReadAll(io.LimitReader(r.Body, payloadLimit+1))
	if err != nil {
		return refusal(http.StatusBadRequest, "The request content was malformed.")
	}
	if len(body) > payloadLimit {
		return tooLarge(max(r.ContentLength, int64(len(body))))
	}
	event, err := f.event(r, path, body)
	if err != nil {
		return refusal(http.StatusInternalServerError, "There was an internal server error.")
	}
	if len(event) > payloadLimit {
		return tooLarge(int64(len(event)))
	}
	return f.await(r.Context(), event, render)
}

func tooLarge(size int64) answer {
	return refusal(http.StatusRequestEntityTooLarge,
		fmt.Sprintf("Request larger than allowed: %d > %d bytes.", size, payloadLimit))
}

// await invokes, and answers 202 when that takes longer than a web client is kept waiting.
func (f *Function) await(ctx context.Context, event json.RawMessage, render func(json.RawMessage) answer) answer {
	activation := newID()
	answers := make(chan answer, 1)
	if !f.detach(func() { answers <- f.activate(activation, event, render) }) {
		return refusal(http.StatusServiceUnavailable, ErrClosed.Error())
	}
	patience := time.NewTimer(f.config.Blocking)
	defer patience.Stop()
	a := refusal(http.StatusAccepted, "Response not yet ready.")
	select {
	case a = <-answers:
	case <-patience.C:
	case <-ctx.Done(): // nobody reads the answer
	}
	a.header.Set("X-Openwhisk-Activation-Id", activation)
	return a
}

// detach runs work that Close waits for, unless the function is closed.
func (f *Function) detach(work func()) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.unanswered.Go(work)
	return true
}

func (f *Function) activate(activation string, event json.RawMessage, render func(json.RawMessage) answer) answer {
	result, err := f.invoke(context.Background(), activation, event)
	switch {
	case errors.Is(err, ErrClosed):
		return refusal(http.StatusServiceUnavailable, ErrClosed.Error())
	case err != nil:
		return refusal(http.StatusBadRequest, "There was an error processing your request.")
	case len(result) > payloadLimit:
		result = tooLong(len(result))
	}
	return render(projection(result))
}

// tooLong is the result that the platform puts in place of one over the limit.
func tooLong(size int) json.RawMessage {
	return fmt.Appendf(nil, `{"error":"The action produced a response that exceeded the allowed length: %d > %d bytes."}`,
		size, payloadLimit)
}
