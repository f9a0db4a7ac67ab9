package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"fallback/functions/envelope"
	"fallback/functions/rabbit"
	"fallback/functions/topology"
)

// system is one of those that are compared. open returns as many operations as may be in flight.
type system struct {
	name   string
	about  string
	server string // its server process; none if the generator talks to the broker itself
	open   func(w *world, n int, body []byte) (operations []operation, closeAll func(), err error)
}

var systems = []system{
	{
		name: "AMQP only",
		about: "the very same messages published by amqp091-go, mandatory and confirmed, on as many channels as the " +
			"server would (one, and one more for each 64 in flight, up to 4)",
		open: openAMQP,
	},
	{
		name: "HTTP only", about: "net/http, reads the body and answers 202", server: "http",
		open: func(w *world, n int, body []byte) ([]operation, func(), error) {
			return httpOperations(n, w.addr, "/fallback/orders/42?x=1", "", body, http.StatusAccepted)
		},
	},
	{
		name: "fallback", about: "fallback serve", server: "fallback",
		open: func(w *world, n int, body []byte) ([]operation, func(), error) {
			return httpOperations(n, w.addr, "/fallback/orders/42?x=1", "", body, http.StatusAccepted)
		},
	},
	{
		name: "article", about: "dial, declare, publish, close for each request", server: "article",
		open: func(w *world, n int, body []byte) ([]operation, func(), error) {
			return httpOperations(n, w.addr, "/fallback", "", body, http.StatusAccepted)
		},
	},
	{
		name: "RabbitMQ HTTP API", about: "POST /api/exchanges/%2F/amq.default/publish",
		open: func(w *world, n int, body []byte) ([]operation, func(), error) {
			publish, err := json.Marshal(map[string]any{
				"properties":  map[string]any{"delivery_mode": 2, "content_type": "application/json"},
				"routing_key": topology.DefaultQueue, "payload_encoding": "base64",
				"payload": base64.StdEncoding.EncodeToString(body),
			})
			if err != nil {
				return nil, nil, err
			}
			password := topology.Demonstration(topology.Admin).Plain
			auth := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(topology.Admin+":"+password)) +
				"\r\n"
			return httpOperations(n, w.management, "/api/exchanges/%2F/amq.default/publish", auth, publish,
				http.StatusOK)
		},
	},
}

// openAMQP publishes what the server would, without HTTP: each operation waits for its confirm.
func openAMQP(w *world, n int, body []byte) ([]operation, func(), error) {
	l := &amqpLink{url: w.amqpURL, channels: make([]*amqp.Channel, min(1+n/64, 4))}
	if err := l.dial(); err != nil {
		return nil, nil, err
	}
	message := sameMessage(body)
	operations := make([]operation, n)
	for i := range operations {
		ch := l.channels[i%len(l.channels)]
		operations[i] = func() error {
			err := publish(ch, message)
			if err != nil && ch.IsClosed() {
				if again, err := l.channel(i); err == nil {
					ch = again
				}
			}
			return err
		}
	}
	return operations, l.close, nil
}

func publish(ch *amqp.Channel, message amqp.Publishing) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", topology.DefaultQueue, true, false, message)
	if err != nil {
		return err
	}
	acked, err := confirm.WaitContext(ctx)
	if err == nil && !acked {
		err = errors.New("the broker refused the message")
	}
	return err
}

// amqpLink is a connection with its channels in confirm mode.
type amqpLink struct {
	url string

	mu       sync.Mutex // guards the rest when the link is dialled anew
	conn     *amqp.Connection
	channels []*amqp.Channel
}

// close does not wait for long: a broker under an alarm does not answer, and the library waits for it without an end.
func (l *amqpLink) close() {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = l.conn.Close()
	}()
	select {
	case <-closed:
	case <-time.After(patience):
	}
}

func (l *amqpLink) dial() error {
	conn, err := amqp.Dial(l.url)
	if err != nil {
		return err
	}
	l.conn = conn
	for i := range l.channels {
		if l.channels[i], err = conn.Channel(); err == nil {
			err = l.channels[i].Confirm(false)
		}
		if err != nil {
			conn.Close()
			return err
		}
	}
	return nil
}

// channel is the i-th operation's, after it was closed: the first that asks dials anew for all.
func (l *amqpLink) channel(i int) (*amqp.Channel, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ch := l.channels[i%len(l.channels)]; ch != nil && !ch.IsClosed() {
		return ch, nil
	}
	l.close()
	if err := l.dial(); err != nil {
		return nil, err
	}
	return l.channels[i%len(l.channels)], nil
}

// sameMessage is the message that the server makes of the generator's request.
func sameMessage(body []byte) amqp.Publishing {
	r := &envelope.Request{
		ID: "01a20262-fead-745d-a0dd-93831abf4e21", Method: "POST", Target: "/orders/42?x=1", Host: "127.0.0.1:34567",
		Scheme: "http", Proto: "HTTP/1.1", Remote: "127.0.0.1:45678", Prefix: "/fallback", ReceivedAt: time.Now(),
		Body: body,
		Header: http.Header{"User-Agent": {"bench"}, "Content-Type": {"application/json"},
			"Content-Length": {fmt.Sprint(len(body))}},
	}
	return amqp.Publishing{
		Headers: amqp.Table{rabbit.HeaderMetadata: r.Metadata()}, ContentType: "application/json",
		DeliveryMode: amqp.Persistent, MessageId: r.ID, Timestamp: r.ReceivedAt, Type: rabbit.MessageType,
		AppId: rabbit.AppID, Body: body,
	}
}

// serveHTTPOnly is what a server costs that does nothing.
func serveHTTPOnly(addr string) error {
	return http.ListenAndServe(addr, http.HandlerFunc(answerAtOnce))
}

func answerAtOnce(w http.ResponseWriter, r *http.Request) {
	if _, err := io.ReadAll(r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{"id":"01a20262-fead-745d-a0dd-93831abf4e21","queue":"FallbackAPIQueue","received_at":"2026-11-22T08:32:51.885177639Z"}`+"\n")
}

// serveArticle does what the article's program does for each request.
func serveArticle(addr string) error {
	url := os.Getenv("AMQP_SERVER_URL")
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = publishAsArticle(url, body)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "A request has been sent via fallback API\n")
	}))
}

func publishAsArticle(url string, body []byte) error {
	conn, err := amqp.Dial(url)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	defer ch.Close()
	q, err := ch.QueueDeclare(topology.DefaultQueue, true, false, false, false, nil)
	if err != nil {
		return err
	}
	return ch.Publish("", q.Name, false, false, amqp.Publishing{ContentType: "text/plain", Body: body})
}
