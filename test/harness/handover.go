package harness

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	amqp10 "github.com/Azure/go-amqp"

	"fallback/functions/topology"
)

// mainAddress is the main queue by AMQP 1.0.
const mainAddress = "/queues/" + topology.DefaultQueue

// SpeaksAMQP10 says whether the tests' broker does without a plugin.
func SpeaksAMQP10() bool { return !strings.HasPrefix(os.Getenv(VersionVariable), "3.") }

// PublishUnspeakable puts a message on the main queue by AMQP 1.0 that RabbitMQ cannot put into words of AMQP 0-9-1:
// it closes each connection by which it tries to hand it over (541).
func (v *VHost) PublishUnspeakable(ctx context.Context, id string) error {
	return v.amqp10(ctx, func(s *amqp10.Session) error {
		sender, err := s.NewSender(ctx, mainAddress, nil)
		if err != nil {
			return err
		}
		return sender.Send(ctx, &amqp10.Message{
			// with less than the default priority, RabbitMQ 4.3 would hand it over when nothing else waits
			Header:                &amqp10.MessageHeader{Durable: true, Priority: 4},
			Properties:            &amqp10.MessageProperties{MessageID: id},
			ApplicationProperties: map[string]any{"trace": amqp10.UUID{1, 2, 3}},
			Data:                  [][]byte{[]byte("body of " + id)},
		}, nil)
	})
}

// RejectFirst moves the first message of the main queue to the parked one, as docs/drain.md says.
func (v *VHost) RejectFirst(ctx context.Context) error {
	return v.amqp10(ctx, func(s *amqp10.Session) error {
		receiver, err := s.NewReceiver(ctx, mainAddress, nil)
		if err != nil {
			return err
		}
		message, err := receiver.Receive(ctx, nil)
		if err != nil {
			return err
		}
		return errors.Join(receiver.RejectMessage(ctx, message, nil), receiver.Close(ctx))
	})
}

// DeleteUnspeakable takes messages with these ids off the main queue, and leaves all others there.
func (v *VHost) DeleteUnspeakable(ctx context.Context, ids map[string]bool) error {
	return v.amqp10(ctx, func(s *amqp10.Session) error {
		receiver, err := s.NewReceiver(ctx, mainAddress, &amqp10.ReceiverOptions{Credit: 1000})
		if err != nil {
			return err
		}
		var others []*amqp10.Message
		for found := 0; found < len(ids); {
			message, err := receiver.Receive(ctx, nil)
			if err != nil {
				return fmt.Errorf("%d of %d found: %w", found, len(ids), err)
			}
			if id, _ := message.Properties.MessageID.(string); !ids[id] {
				others = append(others, message)
				continue
			}
			if err := receiver.AcceptMessage(ctx, message); err != nil {
				return err
			}
			found++
		}
		for _, message := range others {
			if err := receiver.ReleaseMessage(ctx, message); err != nil {
				return err
			}
		}
		return receiver.Close(ctx)
	})
}

// amqp10 does something in a session of the drain's user.
func (v *VHost) amqp10(ctx context.Context, do func(*amqp10.Session) error) error {
	u, err := url.Parse(v.URL(topology.Drainer))
	if err != nil {
		return err
	}
	password, _ := u.User.Password()
	conn, err := amqp10.Dial(ctx, "amqp://"+u.Host, &amqp10.ConnOptions{
		HostName: "vhost:" + v.Name, SASLType: amqp10.SASLTypePlain(u.User.Username(), password),
	})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	session, err := conn.NewSession(ctx, nil)
	if err != nil {
		return err
	}
	return do(session)
}
