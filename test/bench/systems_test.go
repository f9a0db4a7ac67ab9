package main

import (
	"bufio"
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/envelope"
	"fallback/functions/httpapi"
	"fallback/functions/rabbit"
)

// stored is a store that keeps the last request.
type stored struct{ request envelope.Sealed }

func (s *stored) Publish(_ context.Context, r envelope.Sealed) error { s.request = r; return nil }
func (s *stored) Ready(context.Context) error                        { return nil }

// TestSameMessage holds that the floor has messages of the server's own size: else the ratio to it says nothing.
func TestSameMessage(t *testing.T) {
	t.Parallel()
	body := []byte("0123456789")
	var store stored
	door, err := httpapi.New(httpapi.Options{
		Prefix: "/fallback", Methods: []string{"POST"}, Limits: httpapi.Limits{Body: 1 << 20, Header: 64 << 10},
		Timeout: time.Minute, InFlight: 1, BytesInHand: 1 << 20, Log: slog.New(slog.DiscardHandler),
	}, &store)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(post("127.0.0.1:34567", "/fallback/orders/42?x=1", "",
		body))))
	if err != nil {
		t.Fatal(err)
	}
	r.RemoteAddr = "127.0.0.1:45678"
	w := httptest.NewRecorder()
	if door.ServeHTTP(w, r); w.Code != http.StatusAccepted {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	m := sameMessage(body)
	got, err := rabbit.FromMessage(amqp.Delivery{Headers: m.Headers, MessageId: m.MessageId, Type: m.Type,
		Body: m.Body})
	if err != nil {
		t.Fatal(err)
	}
	want, err := envelope.Decode(got.ID, store.request.Metadata, store.request.Body)
	if err != nil {
		t.Fatal(err)
	}
	want.ReceivedAt = got.ReceivedAt
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the server's -, the floor's +:\n%s", diff)
	}
}
