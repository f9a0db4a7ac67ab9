package rabbit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/singleflight"
)

// lookEvery bounds how often questions about the queue reach the broker; between them, the last answer holds.
const lookEvery = time.Second

// knowledge is what a Publisher knows of its queue, as one session told it.
type knowledge struct {
	session       *session
	asking        singleflight.Group // one question at a time
	mayNotDeclare atomic.Bool        // so it is not tried again

	mu   sync.Mutex // guards the rest
	at   time.Time  // of the last answer
	last error
}

// knowledge is the present one. A new session knows nothing yet: permissions may have changed.
func (p *Publisher) knowledge(s *session) *knowledge {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.knows == nil || p.knows.session != s {
		p.knows = &knowledge{session: s}
	}
	return p.knows
}

// answer is the last one, and whether it still holds.
func (k *knowledge) answer() (err error, holds bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last, time.Since(k.at) < lookEvery
}

func (k *knowledge) learn(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.at, k.last = time.Now(), err
}

// quorumArguments are those that the queue is declared with; everything else is policy.
var quorumArguments = amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum}

// Ready says whether a publish would succeed and mean what it should: connected, not blocked, the queue there and a
// quorum queue, as far as the user may see that. The error wraps a [Failure]. Answers are up to a second old.
func (p *Publisher) Ready(ctx context.Context) error {
	s, err := p.get(ctx)
	if err != nil {
		return err
	}
	if s.blocked.Load() {
		return ErrBlocked
	}
	k := p.knowledge(s)
	if err, holds := k.answer(); holds {
		return err
	}
	return p.ask(ctx, k)
}

// ensureQueue is for a publish that was returned: nil means that the queue may be there now. A bad answer holds for a
// second, so that a missing queue does not cost two round trips a request.
func (p *Publisher) ensureQueue(ctx context.Context, s *session) error {
	k := p.knowledge(s)
	if err, holds := k.answer(); holds && err != nil {
		return err
	}
	return p.ask(ctx, k)
}

// ask finds out whether the queue is there and of what type it is, remembers the answer and logs it when it has
// changed. All who ask at the same time share one question.
func (p *Publisher) ask(ctx context.Context, k *knowledge) error {
	select {
	case r := <-k.asking.DoChan("", func() (any, error) {
		if !p.begin() {
			return nil, ErrClosed
		}
		defer p.work.Done()
		err := p.inspect(k)
		k.learn(err)
		if p.current.Load() == k.session { // else it says nothing of the present connection
			p.report(err)
		}
		return nil, err
	}):
		return r.Err
	case <-ctx.Done():
		// A broker that takes no messages may not answer questions on that connection either.
		if k.session.blocked.Load() {
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
		p.notAllowed(err)
	case errors.Is(err, ErrNotQuorum):
		p.states.change("queue", "type", slog.LevelError, "the promise of a 202 does not hold: "+ErrNotQuorum.text,
			"queue", queue, "error", err, "hint", "drain and delete the queue, then import rabbitmq/definitions.json")
	default:
		p.states.change("queue", err.Error(), slog.LevelWarn, "cannot look at the queue", "queue", queue, "error", err)
	}
}

// inspect finds out whether the user may publish, whether the queue is there and what type it has, and declares the
// queue if it is not there and the user may. The error wraps ErrNotAllowed, ErrUnroutable or ErrNotQuorum; or
// ErrUnavailable when nothing could be found out. Nil also means that the user may not see the queue or its type.
func (p *Publisher) inspect(k *knowledge) error {
	err := k.session.tryPermission(p.options.Queue)
	switch {
	case code(err) == amqp.AccessRefused:
		return fmt.Errorf("%w: %w", ErrNotAllowed, err)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	_, _, err = k.session.count(p.options.Queue)
	switch code(err) {
	case 0:
	case amqp.NotFound:
		if err := p.declare(k); err != nil {
			return fmt.Errorf("%w: %w", ErrUnroutable, err)
		}
		p.confirmer.options.log.Warn("the queue did not exist and was declared", "queue", p.options.Queue)
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
	err = p.declare(k)
	var said *amqp.Error
	if errors.As(err, &said) && said.Code == amqp.PreconditionFailed &&
		strings.Contains(said.Reason, amqp.QueueTypeArg) {
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
		p.states.change("management", "silent", slog.LevelWarn, "cannot learn the queue's type from the management API",
			"error", err)
		return ""
	}
	p.states.change("management", "", slog.LevelInfo, "the management API answers again")
	return kind
}

// tryPermission publishes a message that no queue takes: the broker looks first whether the user may publish, and then
// drops it. There is no other way to ask. Without it, a server would say that it is ready, and find out with its first
// request that it is not.
func (l *link) tryPermission(queue string) error {
	return l.ask(func(ch *amqp.Channel) error {
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
func (p *Publisher) declare(k *knowledge) error {
	if k.mayNotDeclare.Load() {
		return ErrNotAllowed
	}
	err := k.session.ask(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(p.options.Queue, true, false, false, false, quorumArguments)
		return err
	})
	k.mayNotDeclare.Store(code(err) == amqp.AccessRefused)
	return err
}
