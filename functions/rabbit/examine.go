package rabbit

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Examination is a connection that asks what a user may do, and changes nothing. Each question that the broker refuses,
// and each that it answers by refusing what makes no sense, is one error in its log.
type Examination struct {
	conn *amqp.Connection
	wire *wire
}

// Examine connects. The context bounds this only; a wrong password takes the broker three seconds to refuse. The error is
// an [EntryError].
func Examine(ctx context.Context, url string) (*Examination, error) {
	conn, w, err := connect(ctx, url, "fallback doctor")
	if err != nil {
		return nil, entryError(ctx, err)
	}
	return &Examination{conn, w}, nil
}

// EntryError is why there is no connection. Its text names no password.
type EntryError struct {
	// Step is where it ended: "tls", "login", or "connection" for all else.
	Step string
	// Advice is what to do about it.
	Advice string
	cause  error
}

func (e *EntryError) Error() string { return e.cause.Error() }
func (e *EntryError) Unwrap() error { return e.cause }

func entryError(ctx context.Context, err error) *EntryError {
	if ctx.Err() != nil { // the library takes a socket that closes after the greeting for a refused password
		return &EntryError{"connection", "check that what answers there is RabbitMQ, and not paused or out of disk", errors.New("no answer in time")}
	}
	e := &EntryError{"connection", hint(err), err}
	var certificate *tls.CertificateVerificationError
	var notTLS tls.RecordHeaderError
	var invalid x509.CertificateInvalidError
	var file *fs.PathError
	switch {
	case errors.As(err, &file):
		e.Step, e.Advice = "tls", "check the files that AMQP_SERVER_URL names: cacertfile, certfile, keyfile"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		e.Step, e.Advice = "tls", "renew the broker's certificate, and check the clock of this host"
	case errors.As(err, &certificate), errors.As(err, &notTLS):
		e.Step = "tls"
	case errors.Is(err, amqp.ErrCredentials), errors.Is(err, amqp.ErrVhost), code(err) == amqp.AccessRefused, code(err) == amqp.NotAllowed:
		e.Step = "login"
	}
	return e
}

// Close says good-bye.
func (e *Examination) Close() { closeConnection(e.conn, e.wire) }

// Version is what the broker says that it is, for example "4.3.1"; empty if it says nothing.
func (e *Examination) Version() string {
	version, _ := e.conn.Properties["version"].(string)
	return version
}

// Expires is when the first of the broker's certificates does; false without TLS.
func (e *Examination) Expires() (time.Time, bool) { return Expires(e.conn.ConnectionState()) }

// Expires is when the first certificate of a chain does; false if there is none.
func Expires(state tls.ConnectionState) (first time.Time, ok bool) {
	for _, certificate := range state.PeerCertificates {
		if !ok || certificate.NotAfter.Before(first) {
			first, ok = certificate.NotAfter, true
		}
	}
	return first, ok
}

// MayPublish is nil, or wraps [ErrNotAllowed], or [ErrBlocked] when an alarm keeps the broker from taking messages. It
// publishes a message that no queue takes, so it leaves nothing behind; a broker under an alarm may read nothing more on
// this connection, so it is the last question to ask.
func (e *Examination) MayPublish(ctx context.Context, queue string) error {
	blocks := e.conn.NotifyBlocked(make(chan amqp.Blocking, 4))
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case b, open := <-blocks:
			if open && b.Active {
				cancel(fmt.Errorf("%w (%s)", ErrBlocked, b.Reason))
			}
		case <-ctx.Done():
		}
	})
	err := e.ask(ctx, func() error { return tryPermission(e.conn, queue) })
	sleep(ctx, 300*time.Millisecond) // the word of an alarm may come after the confirm
	cancel(nil)
	watch.Wait()
	if cause := context.Cause(ctx); errors.Is(cause, ErrBlocked) {
		return cause
	}
	return err
}

// MaySee is nil when the queue is there and the user may look at it, with the messages that are ready and the consumers.
// The error wraps [ErrUnroutable] or [ErrNotAllowed].
func (e *Examination) MaySee(ctx context.Context, queue string) (ready, consumers int, err error) {
	err = e.try(ctx, func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		ready, consumers = q.Messages, q.Consumers
		return err
	})
	return ready, consumers, err
}

// nonsense is an argument that neither a consumer nor a queue may have. The broker looks at permissions first and at
// arguments next, so that PRECONDITION_FAILED says that the user may, and nothing has happened.
var nonsense = amqp.Table{"x-priority": "none", "x-max-length": "none"}

// MayRead is nil, or wraps [ErrUnroutable] or [ErrNotAllowed]. No message is taken.
func (e *Examination) MayRead(ctx context.Context, queue string) error {
	return e.try(ctx, func(ch *amqp.Channel) error {
		_, err := ch.Consume(queue, "", false, false, false, false, nonsense)
		return refusedForNonsense(err)
	})
}

// MayConfigure is nil, or wraps [ErrNotAllowed]. Nothing is declared.
func (e *Examination) MayConfigure(ctx context.Context, queue string) error {
	return e.try(ctx, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(queue, true, false, false, false, nonsense)
		return refusedForNonsense(err)
	})
}

func refusedForNonsense(err error) error {
	switch code(err) {
	case amqp.PreconditionFailed:
		return nil
	case 0:
		return errors.New("the broker took arguments that make no sense")
	default:
		return err
	}
}

func (e *Examination) try(ctx context.Context, question func(*amqp.Channel) error) error {
	err := e.ask(ctx, func() error { return ask(e.conn, question) })
	if code(err) == amqp.NotFound {
		return fmt.Errorf("%w: %w", ErrUnroutable, err)
	}
	return err
}

// ask bounds a question: when ctx ends, so does the connection, and nothing more can be asked.
func (e *Examination) ask(ctx context.Context, question func() error) error {
	stop := closeWith(ctx, e.wire)
	err := question()
	switch {
	case !stop() && err != nil:
		return errors.New("no answer in time")
	case code(err) == amqp.AccessRefused:
		return fmt.Errorf("%w: %w", ErrNotAllowed, err)
	}
	return err
}

// QueueReport is what the management API says of a queue. What comes with its statistics is missing, with Known false, in
// the first seconds of a queue's life.
type QueueReport struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Known bool   `json:"-"`
	// Policy is the name of the policy that applies, and Definition what it and an operator's policy come to.
	Policy     string         `json:"policy"`
	Definition map[string]any `json:"-"`
	Arguments  map[string]any `json:"-"`
	Messages   int64          `json:"messages"`
	Bytes      int64          `json:"message_bytes"`
	// Members are the nodes that have the queue, Online those of them that run.
	Members []string `json:"members"`
	Online  []string `json:"online"`
}

// QueueReports are those of the names that exist in the virtual host.
func (m *Management) QueueReports(ctx context.Context, vhost string, names []string) (map[string]QueueReport, error) {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = regexp.QuoteMeta(name)
	}
	query := url.Values{"page": {"1"}, "page_size": {"100"}, "use_regex": {"true"}, "name": {"^(" + strings.Join(quoted, "|") + ")$"}}
	var answer struct {
		Items []struct {
			QueueReport
			Definition looseObject `json:"effective_policy_definition"`
			Arguments  looseObject `json:"arguments"`
			Memory     *int64      `json:"memory"` // comes with the statistics
		} `json:"items"`
	}
	if err := m.get(ctx, "/api/queues/"+url.PathEscape(vhost)+"?"+query.Encode(), &answer); err != nil {
		return nil, err
	}
	found := map[string]QueueReport{}
	for _, q := range answer.Items {
		q.QueueReport.Definition, q.QueueReport.Arguments = q.Definition, q.Arguments
		q.Known = q.Memory != nil
		found[q.Name] = q.QueueReport
	}
	return found, nil
}

// looseObject is an object that the broker writes as [] when it is empty.
type looseObject map[string]any

func (o *looseObject) UnmarshalJSON(raw []byte) error {
	if strings.HasPrefix(string(raw), "[") || string(raw) == `""` {
		return nil
	}
	return json.Unmarshal(raw, (*map[string]any)(o))
}

// looseInt is a number for which the broker writes a text when it does not know it.
type looseInt int64

func (n *looseInt) UnmarshalJSON(raw []byte) error {
	if strings.HasPrefix(string(raw), `"`) {
		return nil
	}
	return json.Unmarshal(raw, (*int64)(n))
}

// NodeReport is what the management API says of a node of the broker. Numbers are bytes, 0 where it does not know them.
type NodeReport struct {
	Name        string   `json:"name"`
	Running     bool     `json:"running"`
	MemoryAlarm bool     `json:"mem_alarm"`
	DiskAlarm   bool     `json:"disk_free_alarm"`
	Memory      looseInt `json:"mem_used"`
	MemoryLimit looseInt `json:"mem_limit"`
	Disk        looseInt `json:"disk_free"`
	DiskLimit   looseInt `json:"disk_free_limit"`
	Partitions  []string `json:"partitions"`
}

// Nodes are those of the broker. The user needs the tag monitoring.
func (m *Management) Nodes(ctx context.Context) ([]NodeReport, error) {
	var nodes []NodeReport
	return nodes, m.get(ctx, "/api/nodes", &nodes)
}

// WhoAmI is the user's name and tags, as the management API knows it.
func (m *Management) WhoAmI(ctx context.Context) (name string, tags []string, err error) {
	var answer struct {
		Name string `json:"name"`
		Tags any    `json:"tags"` // a list since 3.9, before that a text
	}
	if err := m.get(ctx, "/api/whoami", &answer); err != nil {
		return "", nil, err
	}
	switch t := answer.Tags.(type) {
	case string:
		tags = strings.Split(t, ",")
	case []any:
		for _, tag := range t {
			tags = append(tags, fmt.Sprint(tag))
		}
	}
	return cmp.Or(answer.Name, "somebody"), tags, nil
}
