package rabbit

// Failure is what went wrong with the broker, for errors.Is, with a name for programs. Those up to ErrClosed, and
// ErrNotAllowed, are why a request was not stored, or is not known to be: an error of [Publisher.Publish] wraps exactly
// one of these. One of [Publisher.Ready] may wrap ErrNotAllowed beside ErrUnroutable: the queue is missing, and the
// user may not declare it. What each says of the message ("nothing was sent", "it was not stored") holds for all tries
// of that publish: once one try has an unknown outcome, the error is ErrUnconfirmed.
type Failure struct{ code, text string }

func (f *Failure) Error() string { return f.text }

// Code is a stable name for programs: lower-case words and hyphens.
func (f *Failure) Code() string { return f.code }

var (
	// ErrUnavailable: the broker cannot be reached, or does not answer. Nothing was sent.
	ErrUnavailable = &Failure{"broker-unavailable", "the broker cannot be reached"}
	// ErrBlocked: the broker takes no messages, for want of memory or disk. Nothing was sent.
	ErrBlocked = &Failure{"broker-blocked", "the broker takes no messages: memory or disk alarm"}
	// ErrRefused: the broker would not have the message (basic.nack), more than once unless the queue was known to be
	// full, or no time was left. It was not stored.
	ErrRefused = &Failure{"queue-full", "the broker refused the message: the queue is full"}
	// ErrUnroutable: there is no such queue (basic.return). It was not stored.
	ErrUnroutable = &Failure{"queue-missing", "the queue does not exist"}
	// ErrUnconfirmed: sent, and no confirm in time. It may have been stored or not.
	ErrUnconfirmed = &Failure{"not-confirmed", "the broker did not confirm in time"}
	// ErrOverloaded: as many publishes are in flight as may be. Nothing was sent.
	ErrOverloaded = &Failure{"overloaded", "too many publishes in flight"}
	// ErrClosed: the publisher is shutting down. Nothing was sent.
	ErrClosed = &Failure{"shutting-down", "shutting down"}
	// ErrNotQuorum: the queue is of a type that does not sync to disk before it confirms. Publishing works, the promise
	// does not hold. Ready only.
	ErrNotQuorum = &Failure{"queue-not-quorum",
		"the queue is not a quorum queue: a confirm does not mean that a message is on disk"}
	// ErrNotAllowed: the broker's user lacks a permission: to publish, or to see, read or declare the queue. The
	// refusal closes a channel with all that is in flight on it, so a message that was sent just before may have been
	// stored.
	ErrNotAllowed = &Failure{"not-allowed", "the broker's user lacks the permission"}
	// ErrLostAck: the connection that a delivery came by is gone, and with it the way to settle it: the broker sends
	// it again, whatever became of it. Of [Delivery] only.
	ErrLostAck = &Failure{"ack-lost", "the connection was lost before the broker heard what became of the message: " +
		"it comes again"}
	// ErrCopied: beside ErrLostAck, the broker had confirmed the copy before. Of [Delivery.Move] only.
	ErrCopied = &Failure{"copied", "it is on the other queue, too"}
	// ErrDry: nothing is left on the queue. Of [Source.Next] only, as is the next.
	ErrDry = &Failure{"queue-dry", "nothing is left on the queue"}
	// ErrStuck: messages are ready on the queue, and for ten seconds none has come.
	ErrStuck = &Failure{"queue-stuck", "messages are ready on the queue, and none comes: look at the broker's log, " +
		"and at what fallback doctor says of the queue"}
	// ErrHandOver: the broker has closed the connection for a fault of its own (541), as it does when it cannot put a
	// message into a form that the connection knows. Of [Source]'s Next, Take and Pass.
	ErrHandOver = &Failure{"hand-over", "the broker cannot hand over a message: it closes the connection (541)"}
	// ErrNotAsked: see [Count], its only user.
	ErrNotAsked = &Failure{"not-asked", "not asked"}
)

// Codes are those of the errors of [Publisher.Publish].
func Codes() []string {
	var codes []string
	for _, f := range []*Failure{ErrUnavailable, ErrBlocked, ErrRefused, ErrUnroutable, ErrUnconfirmed, ErrOverloaded,
		ErrClosed, ErrNotAllowed} {
		codes = append(codes, f.code)
	}
	return codes
}
