package rabbit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Examination is a connection that asks what a user may do, and changes nothing. Each question that the broker refuses,
// and each that it answers by refusing what makes no sense, is one error in its log.
type Examination struct{ link *link }

// Examine connects. The context bounds this only; a wrong password takes the broker three seconds to refuse. The error
// is an [EntryError].
func Examine(ctx context.Context, rawURL string) (*Examination, error) {
	l, err := dial(ctx, rawURL, "fallback doctor", nil)
	if err != nil {
		return nil, entryError(ctx, err)
	}
	return &Examination{l}, nil
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
		return &EntryError{"connection", "check that what answers there is RabbitMQ, and not paused or out of disk",
			errors.New("no answer in time")}
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
	case errors.Is(err, amqp.ErrCredentials), errors.Is(err, amqp.ErrVhost), code(err) == amqp.AccessRefused,
		code(err) == amqp.NotAllowed:
		e.Step = "login"
	}
	return e
}

// Close says good-bye.
func (e *Examination) Close() { e.link.close() }

// Version is what the broker says that it is, for example "4.3.1"; empty if it says nothing.
func (e *Examination) Version() string { return e.link.version() }

// Expires is when the first of the broker's certificates does; false without TLS.
func (e *Examination) Expires() (time.Time, bool) { return Expires(e.link.secured) }

// Expires is when the first certificate of a chain does; false if there is none.
func Expires(state tls.ConnectionState) (first time.Time, ok bool) {
	for _, certificate := range state.PeerCertificates {
		if !ok || certificate.NotAfter.Before(first) {
			first, ok = certificate.NotAfter, true
		}
	}
	return first, ok
}

// MayPublish returns nil if the user may publish. The error wraps [ErrNotAllowed], or [ErrBlocked] when an alarm keeps
// the broker from taking messages; any other says that it could not be found out. It publishes a message that no queue
// takes, so it leaves nothing behind; a broker under an alarm may read nothing more on this connection, so it is the
// last question to ask.
func (e *Examination) MayPublish(ctx context.Context, queue string) error {
	blocks := e.link.conn.NotifyBlocked(make(chan amqp.Blocking, 4))
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
	err := e.ask(ctx, func() error { return e.link.tryPermission(queue) })
	sleep(ctx, 300*time.Millisecond) // the word of an alarm may come after the confirm
	cancel(nil)
	watch.Wait()
	if cause := context.Cause(ctx); errors.Is(cause, ErrBlocked) {
		return cause
	}
	return err
}

// MaySee returns how many messages are ready on the queue and how many consumers it has, if it is there and the user
// may look at it. The error wraps [ErrUnroutable] or [ErrNotAllowed]; any other says that it could not be found out.
func (e *Examination) MaySee(ctx context.Context, queue string) (ready, consumers int, err error) {
	err = e.ask(ctx, func() error {
		ready, consumers, err = e.link.count(queue)
		return err
	})
	return ready, consumers, err
}

// nonsense is an argument that neither a consumer nor a queue may have. The broker looks at permissions first and at
// arguments next, so that PRECONDITION_FAILED says that the user may, and nothing has happened.
var nonsense = amqp.Table{"x-priority": "none", "x-max-length": "none"}

// MayRead returns nil if the user may take messages off the queue; none is taken. The error is as MaySee's.
func (e *Examination) MayRead(ctx context.Context, queue string) error {
	return e.try(ctx, func(ch *amqp.Channel) error {
		_, err := ch.Consume(queue, "", false, false, false, false, nonsense)
		return refusedForNonsense(err)
	})
}

// MayConfigure returns nil if the user may declare the queue; it is not declared. The error wraps [ErrNotAllowed]; any
// other says that it could not be found out.
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
	return e.ask(ctx, func() error { return e.link.ask(question) })
}

// ask bounds a question: when ctx ends, so does the connection, and nothing more can be asked.
func (e *Examination) ask(ctx context.Context, question func() error) error {
	stop := e.link.endWith(ctx)
	err := question()
	if !stop() && err != nil {
		return errors.New("no answer in time")
	}
	return refusal(err)
}
