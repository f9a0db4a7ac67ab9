package fault

import (
	"context"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/envelope"
	"fallback/functions/rabbit"
	"fallback/functions/topology"
)

// wrongStore is a store for the door that is wrong on purpose in one way: what the negative controls are made of. It
// keeps one connection and one channel, and makes new ones when they are lost.
type wrongStore struct {
	url       string
	confirms  bool // wait for the broker's confirm before the answer
	early     bool // ask for confirms, and answer without waiting for them
	mandatory bool
	alter     func(m *amqp.Publishing)
	twice     bool

	mu   sync.Mutex // guards conn, ch
	conn *amqp.Connection
	ch   *amqp.Channel
}

func (s *wrongStore) Ready(context.Context) error { return nil }

func (s *wrongStore) Publish(ctx context.Context, r envelope.Sealed) error {
	m := amqp.Publishing{
		Headers:      amqp.Table{rabbit.HeaderMetadata: r.Metadata},
		ContentType:  "application/octet-stream",
		DeliveryMode: amqp.Persistent,
		MessageId:    r.ID,
		Timestamp:    r.ReceivedAt,
		Body:         append([]byte(nil), r.Body...),
	}
	if s.alter != nil {
		s.alter(&m)
	}
	if s.twice {
		if err := s.publish(ctx, m); err != nil {
			return err
		}
	}
	return s.publish(ctx, m)
}

func (s *wrongStore) publish(ctx context.Context, m amqp.Publishing) error {
	ch, err := s.channel()
	if err != nil {
		return err
	}
	if !s.confirms && !s.early {
		return ch.PublishWithContext(ctx, "", topology.DefaultQueue, s.mandatory, false, m)
	}
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", topology.DefaultQueue, s.mandatory, false, m)
	if err != nil || s.early {
		return err
	}
	acked, err := confirm.WaitContext(ctx)
	if err == nil && !acked {
		return rabbit.ErrRefused
	}
	return err
}

func (s *wrongStore) channel() (*amqp.Channel, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil && !s.ch.IsClosed() {
		return s.ch, nil
	}
	if s.conn != nil {
		_ = s.conn.CloseDeadline(time.Now().Add(time.Second))
	}
	var err error
	if s.conn, err = amqp.DialConfig(s.url, amqp.Config{Heartbeat: 10 * time.Second}); err != nil {
		return nil, err
	}
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, err
	}
	if s.confirms || s.early {
		if err := ch.Confirm(false); err != nil {
			return nil, err
		}
	}
	s.ch = ch
	return ch, nil
}

func (s *wrongStore) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		_ = s.conn.CloseDeadline(time.Now().Add(time.Second))
	}
}
