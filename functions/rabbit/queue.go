package rabbit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// lookEvery bounds how often questions about the queue reach the broker; between them, the last answer holds.
const lookEvery = time.Second

// look is what a look at the queue found.
type look struct {
	at  time.Time
	err error
}

// quorumArguments are those that the queue is declared with; everything else is policy.
var quorumArguments = amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum}

// Ready says whether a publish would succeed and mean what it should: connected, not blocked, the queue there and a
// quorum queue. The error wraps a [Failure]. Answers are up to a second old.
func (p *Publisher) Ready(ctx context.Context) error {
	s, err := p.session(ctx)
	if err != nil {
		return err
	}
	if s.blocked.Load() {
		return ErrBlocked
	}
	if last := s.lastLook(); time.Since(last.at) < lookEvery {
		return last.err
	}
	return p.look(ctx, s)
}

// ensureQueue is for a publish that was returned: nil means that the queue is there now. A bad answer holds for a
// second, so that a missing queue does not cost two round trips a request.
func (p *Publisher) ensureQueue(ctx context.Context, s *session) error {
	if last := s.lastLook(); last.err != nil && time.Since(last.at) < lookEvery {
		return last.err
	}
	return p.look(ctx, s)
}

func (s *session) lastLook() look {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.looked
}

// look asks whether the queue is there and of what type it is, remembers the answer and logs it when it has changed. All
// who ask at the same time share one question.
func (p *Publisher) look(ctx context.Context, s *session) error {
	select {
	case r := <-s.looking.DoChan("", func() (any, error) {
		if !p.begin() {
			return nil, ErrClosed
		}
		defer p.work.Done()
		err := p.inspect(s)
		s.mu.Lock()
		s.looked = look{time.Now(), err}
		s.mu.Unlock()
		if p.current.Load() == s { // else it says nothing of the present connection
			p.report(err)
		}
		return nil, err
	}):
		return r.Err
	case <-ctx.Done():
		// A broker that takes no messages may not answer questions on that connection either.
		if s.blocked.Load() {
			return ErrBlocked
		}
		return fmt.Errorf("%w: no answer about the queue in time", ErrUnavailable)
	}
}

func (p *Publisher) report(err error) {
	queue := p.options.Queue
	switch {
	case err == nil:
		p.states.change("queue", "", slog.LevelInfo, "the queue is there", "queue", queue)
	case errors.Is(err, ErrUnroutable):
		p.states.change("queue", "missing", slog.LevelError, "the queue does not exist: nothing can be stored on it",
			"queue", queue, "error", err, "hint", "import rabbitmq/definitions.json, or use a user that may declare it")
	case errors.Is(err, ErrNotAllowed):
		p.states.change("queue", "permission", slog.LevelError, "the broker's user may not publish: nothing can be stored or moved",
			"error", err, "hint", "give it write permission on amq.default, as rabbitmq/definitions.json does for fallback-publisher and fallback-drainer")
	case errors.Is(err, ErrNotQuorum):
		p.states.change("queue", "type", slog.LevelError, "the promise of a 202 does not hold: "+ErrNotQuorum.text,
			"queue", queue, "error", err, "hint", "drain and delete the queue, then import rabbitmq/definitions.json")
	default:
		p.states.change("queue", err.Error(), slog.LevelWarn, "cannot look at the queue", "queue", queue, "error", err)
	}
}

// inspect finds out whether the user may publish, whether the queue is there and what type it has, and declares it if it
// is not there and the user may. It answers nil, or why it could not tell, or wraps ErrNotAllowed, ErrUnroutable or
// ErrNotQuorum.
func (p *Publisher) inspect(s *session) error {
	err := tryPermission(s.conn, p.options.Queue)
	switch {
	case code(err) == amqp.AccessRefused:
		return fmt.Errorf("%w: %w", ErrNotAllowed, err)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	err = ask(s.conn, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclarePassive(p.options.Queue, true, false, false, false, nil)
		return err
	})
	switch code(err) {
	case 0:
	case amqp.NotFound:
		if err := p.declare(s); err != nil {
			return fmt.Errorf("%w: %w", ErrUnroutable, err)
		}
		p.options.Log.Warn("the queue did not exist and was declared", "queue", p.options.Queue)
		return nil
	case amqp.AccessRefused:
		return nil // it may be there; a publish will tell
	default:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}

	if kind := p.queueType(); kind == amqp.QueueTypeQuorum {
		return nil
	} else if kind != "" {
		return fmt.Errorf("%w: it is of type %s", ErrNotQuorum, kind)
	}
	// AMQP tells the type to those only who may declare the queue: the same again is fine, another is refused.
	err = p.declare(s)
	var refusal *amqp.Error
	if errors.As(err, &refusal) && refusal.Code == amqp.PreconditionFailed && strings.Contains(refusal.Reason, amqp.QueueTypeArg) {
		return fmt.Errorf("%w: %w", ErrNotQuorum, err)
	}
	return nil
}

// queueType is empty when there is no way to ask, or no answer.
func (p *Publisher) queueType() string {
	if p.options.QueueType == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(p.life, dialTimeout)
	defer cancel()
	kind, err := p.options.QueueType(ctx, p.options.Queue)
	if err != nil {
		p.states.change("management", "silent", slog.LevelWarn, "cannot learn the queue's type from the management API", "error", err)
		return ""
	}
	p.states.change("management", "", slog.LevelInfo, "the management API answers again")
	return kind
}

// tryPermission publishes a message that no queue takes: the broker looks first whether the user may publish, and then
// drops it. There is no other way to ask, and a server that finds out with its first request has said that it is ready.
func tryPermission(conn *amqp.Connection, queue string) error {
	return ask(conn, func(ch *amqp.Channel) error {
		closes := ch.NotifyClose(make(chan *amqp.Error, 1))
		if err := ch.Confirm(false); err != nil {
			return err
		}
		confirm, err := ch.PublishWithDeferredConfirm("", queue+" permission", false, false, amqp.Publishing{})
		if err != nil {
			return err
		}
		if confirm.Wait() {
			return nil
		}
		if err, open := <-closes; open {
			return err
		}
		return errLost
	})
}

// declare makes the queue, or says that the user may not; a user who may not is not tried again on this connection.
func (p *Publisher) declare(s *session) error {
	if s.mayNotDeclare.Load() {
		return ErrNotAllowed
	}
	err := ask(s.conn, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(p.options.Queue, true, false, false, false, quorumArguments)
		return err
	})
	s.mayNotDeclare.Store(code(err) == amqp.AccessRefused)
	return err
}

// ask runs a question on a channel of its own: the broker closes the channel of a question that it refuses. It may wait
// for as long as the connection lives, so its callers run it where they can leave it.
func ask(conn *amqp.Connection, question func(*amqp.Channel) error) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	err = question(ch)
	if !ch.IsClosed() {
		_ = ch.Close()
	}
	return err
}

// code is the broker's reply code in an error: 0 for none, -1 for an error that is not the broker's.
func code(err error) int {
	var refusal *amqp.Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &refusal):
		return refusal.Code
	default:
		return -1
	}
}

// hint says what to do about a failure to connect.
func hint(err error) string {
	var certificate *tls.CertificateVerificationError
	var notTLS tls.RecordHeaderError
	switch {
	case errors.As(err, &certificate):
		return "the broker's certificate is not trusted or not for this host name: name its CA in AMQP_SERVER_URL with ?cacertfile="
	case errors.As(err, &notTLS):
		return "what answers there does not speak TLS: check the port in AMQP_SERVER_URL, or use amqp://"
	case errors.Is(err, amqp.ErrCredentials), code(err) == amqp.AccessRefused:
		return "check the user and password in AMQP_SERVER_URL"
	case errors.Is(err, amqp.ErrVhost), code(err) == amqp.NotAllowed:
		return "check the virtual host in AMQP_SERVER_URL, and the user's permissions on it"
	default:
		return "check that RabbitMQ runs, and the host and port in AMQP_SERVER_URL"
	}
}
