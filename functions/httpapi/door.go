// Package httpapi is the one door: an http.Handler that captures requests and stores them, and the server around it.
//
// What comes in is any HTTP request, from the server here or from a platform's event; what goes out is one of the few
// answers of the README. A 202 is written after the store has confirmed the request and not before. Every error is an
// RFC 9457 problem with a stable type, and none shows a URL, a credential or the broker's address. A failure of ours is
// never a 4xx: senders do not retry those.
package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"fallback/functions/envelope"
)

// Store is where captured requests go.
type Store interface {
	// Publish returns nil when the request is stored for good. Errors that have a method Code() string say why not.
	Publish(context.Context, *envelope.Request) error
	// Ready says whether Publish would succeed now.
	Ready(context.Context) error
}

// Options are the door's settings.
type Options struct {
	// Prefix is taken off the path; "/" captures every path.
	Prefix string
	// Methods are those that are queued.
	Methods []string
	// Queue is named in the answer.
	Queue string
	// Limits bound one request.
	Limits envelope.Limits
	// Timeout bounds the time from a request's headers to its answer.
	Timeout time.Duration
	// InFlight and BytesInHand bound what is in hand at the same time: requests, and bytes of their bodies.
	InFlight    int
	BytesInHand int64
	// Rate bounds the requests a second, 0 is no bound.
	Rate float64
	// Tokens and WebhookSecrets let a request in; if there are none of either, every request is let in.
	Tokens         []string
	WebhookSecrets []string
	Log            *slog.Logger
	// Answered, if set, is called for each request that is not about the server itself, when it has been answered, with one
	// of [Outcomes] or the code of an error of the store.
	Answered func(outcome string, took time.Duration)
	// Metrics, if set, answers GET and HEAD of /metrics.
	Metrics http.Handler
}

// Door is the handler.
type Door struct {
	options Options
	prefix  string // without a slash at its end
	store   Store
	keys    keys
	limiter *rate.Limiter // nil without a rate
	queue   string        // as JSON

	requests atomic.Int64 // in hand
	bytes    atomic.Int64 // in hand
}

// New returns a Door. The error says which webhook secret cannot be read, by its place.
func New(o Options, store Store) (*Door, error) {
	keys, err := newKeys(o.Tokens, o.WebhookSecrets)
	if err != nil {
		return nil, err
	}
	queue, err := json.Marshal(o.Queue)
	if err != nil {
		return nil, err
	}
	d := &Door{options: o, prefix: strings.TrimRight(o.Prefix, "/"), store: store, keys: keys, queue: string(queue)}
	if d.options.Answered == nil {
		d.options.Answered = func(string, time.Duration) {}
	}
	if o.Rate > 0 {
		d.limiter = rate.NewLimiter(rate.Limit(o.Rate), max(1, int(o.Rate)))
	}
	return d, nil
}

func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	if outcome := d.answer(w, r); outcome != "" {
		d.options.Answered(outcome, time.Since(begin))
	}
}

// answer answers a request, and returns the outcome; none for one that asks about the server itself.
func (d *Door) answer(w http.ResponseWriter, r *http.Request) (outcome string) {
	defer d.recover(w, r, &outcome)
	uri := originForm(r.RequestURI)
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		switch path, _, _ := strings.Cut(uri, "?"); {
		case path == "/livez":
			d.livez(w)
			return ""
		case path == "/readyz":
			d.readyz(w, r)
			return ""
		case path == "/metrics" && d.options.Metrics != nil:
			d.options.Metrics.ServeHTTP(w, r)
			return ""
		}
	}
	target, ok := d.target(uri)
	switch {
	case !ok:
		return notFound(d.prefix).refuse(w, r)
	case !slices.Contains(d.options.Methods, r.Method):
		return methodNotQueued.refuse(w, r)
	default:
		return d.enqueue(w, r, target)
	}
}

// originForm is the path and query of a request line, which may hold a whole URL when the client takes us for a proxy.
func originForm(uri string) string {
	_, rest, absolute := strings.Cut(uri, "://")
	if strings.HasPrefix(uri, "/") || !absolute {
		return uri
	}
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		return strings.TrimSuffix("/", rest[i:i+1]) + rest[i:]
	}
	return "/"
}

// target is what is behind the prefix, byte for byte: a router that cleans paths would change what is stored.
func (d *Door) target(uri string) (string, bool) {
	rest, ok := strings.CutPrefix(uri, d.prefix)
	switch {
	case !ok:
		return "", false
	case rest == "" || rest[0] == '?':
		return "/" + rest, true
	default:
		return rest, rest[0] == '/'
	}
}

// enqueue captures the request, stores it, answers, and returns the outcome.
func (d *Door) enqueue(w http.ResponseWriter, r *http.Request, target string) string {
	// The client's going away does not end the wait: what has been sent to the broker cannot be called back, and what
	// is in hand stays counted until it is done.
	ctx, cancel := context.WithDeadline(context.WithoutCancel(r.Context()), d.deadline(r))
	defer cancel()

	// Before anything is counted: what strangers send must not use up what others may.
	authorized := d.keys.open() || d.keys.hasToken(r.Header)
	if !authorized && !d.keys.maySign(r.Header) {
		return unauthorized.refuse(w, r)
	}
	r.Header.Del(authorization)

	held, problem := d.admit(r)
	if problem != nil {
		return problem.refuse(w, r)
	}
	defer d.release(held)
	if authorized && d.tooMany() {
		return rateLimited.refuse(w, r)
	}

	request, err := envelope.Capture(r, target, d.options.Limits)
	if err != nil {
		return d.unreadable(err).refuse(w, r)
	}
	switch {
	case authorized:
	case !d.keys.isSigned(request):
		return unauthorized.write(w)
	case d.tooMany():
		return rateLimited.write(w)
	}
	if err := d.store.Publish(ctx, request); err != nil {
		d.options.Log.Debug("not stored", "id", request.ID, "error", err)
		return notStored(err, request.ID).write(w)
	}
	d.accepted(w, request)
	return Accepted
}

// deadline is the door's timeout from now, or a little before the platform's own deadline if that comes sooner.
func (d *Door) deadline(r *http.Request) time.Time {
	const margin = 250 * time.Millisecond
	deadline := time.Now().Add(d.options.Timeout)
	if platform, ok := r.Context().Deadline(); ok && platform.Add(-margin).Before(deadline) {
		return platform.Add(-margin)
	}
	return deadline
}

// admit counts a request in, and the bytes that it may take: all that are allowed when it does not say how many it has.
// What it returns is to be released.
func (d *Door) admit(r *http.Request) (held int64, refused *problem) {
	held = r.ContentLength
	if held < 0 {
		held = d.options.Limits.Body
	}
	if held > d.options.Limits.Body {
		return 0, bodyTooLarge(d.options.Limits.Body)
	}
	requests, bytes := d.requests.Add(1), d.bytes.Add(held)
	if requests > int64(d.options.InFlight) || bytes > d.options.BytesInHand {
		d.release(held)
		return 0, &overloaded
	}
	return held, nil
}

// tooMany takes one of the requests that the rate allows for, or says that there is none.
func (d *Door) tooMany() bool { return d.limiter != nil && !d.limiter.Allow() }

func (d *Door) release(held int64) {
	d.requests.Add(-1)
	d.bytes.Add(-held)
}

// InHand is how many requests are in hand now, and how many bytes their bodies may take.
func (d *Door) InHand() (requests, bytes int64) { return d.requests.Load(), d.bytes.Load() }

// unreadable is the answer to a request that could not be captured.
func (d *Door) unreadable(err error) *problem {
	switch {
	case errors.Is(err, envelope.ErrBodyTooLarge):
		return bodyTooLarge(d.options.Limits.Body)
	case errors.Is(err, envelope.ErrHeaderTooLarge):
		return headerTooLarge(d.options.Limits.Header)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &bodyTooSlow
	case errors.Is(err, envelope.ErrUnreadable):
		return &unreadableBody
	default:
		d.options.Log.Error("cannot capture a request", "error", err)
		return &internal
	}
}

// accepted writes the 202.
func (d *Door) accepted(w http.ResponseWriter, r *envelope.Request) {
	h := w.Header()
	h["Fallback-Id"] = []string{r.ID}
	h["Content-Type"] = contentTypeJSON
	w.WriteHeader(http.StatusAccepted)
	body := make([]byte, 0, 160)
	body = append(body, `{"id":"`...)
	body = append(body, r.ID...)
	body = append(body, `","queue":`...)
	body = append(body, d.queue...)
	body = append(body, `,"received_at":"`...)
	body = r.ReceivedAt.AppendFormat(body, time.RFC3339Nano)
	body = append(body, "\"}\n"...)
	_, _ = w.Write(body) // a client that is gone has its answer in the queue
}

var contentTypeJSON = []string{"application/json"}

// recover turns a bug of ours into a 500, and keeps it from the other requests.
func (d *Door) recover(w http.ResponseWriter, r *http.Request, outcome *string) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	d.options.Log.Error("panic", "error", fmt.Sprint(v), "method", r.Method, "stack", string(debug.Stack()))
	*outcome = internal.write(w)
}
