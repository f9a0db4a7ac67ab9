// Package httpapi is the one door: an http.Handler that captures requests and stores them, and the server around it.
//
// What comes in is any HTTP request, from the server here or from a platform's event; what goes out is one of the few
// answers of the README. A 202 is written after the store has confirmed the request and not before. Every error is an
// RFC 9457 problem with a stable type, and none shows a URL, a credential or the broker's address. A failure of ours is
// never a 4xx: senders do not retry those.
//
// A request is in hand from the moment that the door lets it in, or begins to read its body to see whether it may,
// until it is stored or refused. A connection is busy for longer: from the end of the head until the answer is written.
package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"fallback/functions/envelope"
	"fallback/functions/problem"
)

// Store is where captured requests go.
type Store interface {
	// Publish returns nil when the request is stored for good. Errors that have a method Code() string say why not.
	Publish(context.Context, envelope.Sealed) error
	// Ready says whether Publish would succeed now.
	Ready(context.Context) error
}

// Limits bound one request, in bytes.
type Limits struct {
	// Body bounds the body, whatever its transfer coding.
	Body int64
	// Header bounds the metadata, see [envelope.Request.Seal].
	Header int
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
	Limits Limits
	// Timeout bounds the time from a request's headers to its answer.
	Timeout time.Duration
	// InFlight bounds the requests that are being stored at the same time, BytesInHand the bytes of bodies, those on
	// their way in among them.
	InFlight    int
	BytesInHand int64
	// Rate bounds the requests a second, 0 is no bound.
	Rate float64
	// Tokens and WebhookSecrets let a request in; if there are none of either, every request is let in.
	Tokens         []string
	WebhookSecrets []string
	// AcceptReplays are the secrets with which another Fallback signs its replays, which are let in by that alone. A
	// replay that is not signed so is refused: it is our own, come back.
	AcceptReplays []string
	// TrustedProxies are the peers whose X-Forwarded-* and Forwarded are kept. Platform: the door is behind a platform
	// that sets X-Forwarded-For, -Proto and -Port, and nobody else is trusted.
	TrustedProxies []netip.Prefix
	Platform       bool
	// CORSOrigins are the origins whose pages may send: "https://shop.example.com", or "*" for all.
	CORSOrigins []string
	// Admitted, if set, is called with each key that has let a request in: its kind, and its place in the list, from 1.
	Admitted func(kind string, place int)
	// Log gets bugs of ours, and at debug level what was not stored.
	Log *slog.Logger
	// Answered, if set, is called for each request that is not about the server itself, when it has been answered,
	// with one of [Outcomes] or the code of an error of the store.
	Answered func(outcome string, took time.Duration)
	// Refused, if set, is called for each connection that is turned away, with one of [Refusals].
	Refused func(reason string)
	// Metrics, if set, answers GET and HEAD of /metrics.
	Metrics http.Handler
}

// Door is the handler.
type Door struct {
	options Options
	prefix  string // without a slash at its end
	queue   Store
	keys    keys
	limiter *rate.Limiter // nil without a rate
	name    string        // the queue's, as JSON

	requests atomic.Int64 // in hand: their bodies are on their way in, or they are being stored
	storing  atomic.Int64
	bodies   *room
	unproved *room // for bodies that are read to check a signature
}

// New returns a Door. The error says which webhook secret cannot be read, by its place.
func New(o Options, queue Store) (*Door, error) {
	all, err := newKeys(o.Tokens, o.WebhookSecrets, o.AcceptReplays)
	if err != nil {
		return nil, err
	}
	name, _ := json.Marshal(o.Queue) // a string
	d := &Door{
		options: o, prefix: strings.TrimRight(o.Prefix, "/"), queue: queue, keys: all, name: string(name),
		bodies: newRoom(o.BytesInHand, nil),
	}
	d.unproved = newRoom(max(o.BytesInHand/8, o.Limits.Body), d.bodies)
	if d.options.Answered == nil {
		d.options.Answered = func(string, time.Duration) {}
	}
	if d.options.Log == nil {
		d.options.Log = slog.New(slog.DiscardHandler)
	}
	if d.options.Admitted == nil {
		d.options.Admitted = func(string, int) {}
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
	d.cors(w.Header(), r.Header)
	uri := originForm(r.RequestURI)
	target, found := d.target(uri)
	switch {
	case envelope.IsMarked(r.Header):
		return d.answerMarked(w, r, target, found)
	case d.answerAboutServer(w, r, uri):
		return ""
	case isPreflight(w.Header(), r):
		return preflight(w, r, d.options.Methods)
	case !found:
		return refuse(w, r, *notFound(d.prefix))
	case !slices.Contains(d.options.Methods, r.Method):
		return refuse(w, r, methodNotQueued)
	default:
		return d.enqueue(w, r, target, nil)
	}
}

// answerMarked answers what a drain has sent. A replay is let in, if it may be, whatever its method: its client has
// its answer.
func (d *Door) answerMarked(w http.ResponseWriter, r *http.Request, target string, found bool) (outcome string) {
	if d.isProbe(r) {
		d.readyz(w, r)
		return ""
	}
	replay := d.readReplay(r.Header)
	if replay == nil || !found {
		return refuse(w, r, loop)
	}
	return d.enqueue(w, r, target, replay)
}

// answerAboutServer answers a request that is about the server itself, and says whether it was one. Without metrics,
// their path is like any other.
func (d *Door) answerAboutServer(w http.ResponseWriter, r *http.Request, uri string) bool {
	switch path := serverPath(r, uri); {
	case path == "/livez":
		Live(w)
	case path == "/readyz":
		d.readyz(w, r)
	case path == "/metrics" && d.options.Metrics != nil:
		d.options.Metrics.ServeHTTP(w, r)
	default:
		return false
	}
	return true
}

// originForm is the path and query of a request line, which may hold a whole URL when the client takes us for a proxy.
func originForm(uri string) string {
	_, rest, absolute := strings.Cut(uri, "://")
	if strings.HasPrefix(uri, "/") || !absolute {
		return uri
	}
	i := strings.IndexAny(rest, "/?")
	switch {
	case i < 0:
		return "/"
	case rest[i] == '?':
		return "/" + rest[i:]
	default:
		return rest[i:]
	}
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

// enqueue stores the request, answers, and returns the outcome. It is not in hand any more when the answer is written:
// a client that does not read it keeps nothing from others.
func (d *Door) enqueue(w http.ResponseWriter, r *http.Request, target string, replay *replay) string {
	stored, refused := d.store(w, r, target, replay)
	if refused != nil {
		return refuse(w, r, *refused)
	}
	d.accepted(w, stored)
	return Accepted
}

// store captures the request and stores it, or says why not. replay is what it says of itself if it is one.
func (d *Door) store(w http.ResponseWriter, r *http.Request, target string, replay *replay) (stored envelope.Sealed,
	refused *problem.Problem) {
	received := time.Now()
	// The client's going away does not end the wait: what has been sent to the broker cannot be called back, and what
	// is in hand stays counted until it is done.
	ctx, cancel := context.WithDeadline(context.WithoutCancel(r.Context()), d.deadline(r, received))
	defer cancel()

	target, visitor := d.examine(r.Header, target, replay)
	switch {
	case visitor.is == stranger: // whatever else is to be said of it
		return stored, &unauthorized
	case r.ContentLength > d.options.Limits.Body:
		return stored, bodyTooLarge(d.options.Limits.Body)
	case d.full():
		return stored, &overloaded
	}
	room := d.unproved
	if visitor.is != unproved { // before anything is counted: what strangers send must not use up what others may
		if room, refused = d.bodies, d.admit(&visitor, nil); refused != nil {
			return stored, refused
		}
	}
	d.requests.Add(1)
	defer d.requests.Add(-1)
	body := newIntake(w, room, received)
	defer body.release()
	content, err := body.read(r, d.options.Limits.Body)
	if err != nil {
		return stored, d.unreadable(body, err)
	}
	r.Body = http.NoBody // nothing more of it is to come
	request := envelope.Capture(r, target, content, received)
	if visitor.is == unproved {
		if refused := d.admit(&visitor, content); refused != nil {
			return stored, refused
		}
		body.moveOut()
	}
	d.clean(request, visitor)
	if stored, err = request.Seal(d.options.Limits.Header); err != nil {
		return stored, headerTooLarge(d.options.Limits.Header)
	}
	defer d.storing.Add(-1)
	if d.storing.Add(1) > int64(d.options.InFlight) {
		return stored, &overloaded
	}
	if visitor.place > 0 {
		d.options.Admitted(visitor.key, visitor.place)
	}
	if err := d.queue.Publish(ctx, stored); err != nil {
		d.options.Log.Debug("not stored", "id", request.ID, "error", err)
		return stored, notStored(err, request.ID)
	}
	return stored, nil
}

// deadline is the door's timeout, or a little before the platform's own deadline if that comes sooner.
func (d *Door) deadline(r *http.Request, received time.Time) time.Time {
	const margin = 250 * time.Millisecond
	deadline := received.Add(d.options.Timeout)
	if platform, ok := r.Context().Deadline(); ok && platform.Add(-margin).Before(deadline) {
		return platform.Add(-margin)
	}
	return deadline
}

// full says that as many requests are being stored as may be: no further body is worth reading.
func (d *Door) full() bool { return d.storing.Load() >= int64(d.options.InFlight) }

// InHand is how many requests are in hand now, those whose bodies are on their way in among them, and how many bytes
// their bodies take.
func (d *Door) InHand() (requests, size int64) {
	return d.requests.Load(), d.bodies.used.Load()
}

// accepted writes the 202.
func (d *Door) accepted(w http.ResponseWriter, r envelope.Sealed) {
	h := w.Header()
	h[envelope.HeaderID] = []string{r.ID}
	h["Content-Type"] = contentTypeJSON
	w.WriteHeader(http.StatusAccepted)
	body := make([]byte, 0, 160)
	body = append(body, `{"id":"`...)
	body = append(body, r.ID...)
	body = append(body, `","queue":`...)
	body = append(body, d.name...)
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
	*outcome = write(w, problem.Internal)
}
