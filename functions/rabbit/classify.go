package rabbit

import (
	"crypto/tls"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// code is the broker's reply code in an error: 0 for none, -1 for an error that is not the broker's.
func code(err error) int {
	var said *amqp.Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &said):
		return said.Code
	default:
		return -1
	}
}

// refusal is an error of the client library as one of ours where the broker has refused: the queue is missing, or the
// user may not. Others stay as they are.
func refusal(err error) error {
	switch code(err) {
	case amqp.NotFound:
		return fmt.Errorf("%w: %w", ErrUnroutable, err)
	case amqp.AccessRefused:
		return fmt.Errorf("%w: %w", ErrNotAllowed, err)
	}
	return err
}

// classify is an error of the client library as one of ours: what is no refusal of the broker's is the end of the
// connection.
func classify(err error) error {
	if refused := refusal(err); refused != err || err == nil {
		return refused
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// hint says what to do about a failure to connect.
func hint(err error) string {
	var certificate *tls.CertificateVerificationError
	var notTLS tls.RecordHeaderError
	switch {
	case errors.As(err, &certificate):
		return "the broker's certificate is not trusted or not for this host name: name its CA in AMQP_SERVER_URL " +
			"with ?cacertfile="
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
