package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
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
	server []string // command line of its server process; none if the generator talks to the broker itself
	open   func(w *world, n int, body []byte) (operations []operation, closeAll func(), err error)
}

var systems = []system{
	{
		name: "AMQP only", about: "the very same messages published by amqp091-go: 4 channels, mandatory, confirmed",
		open: openAMQP,
	},
	{
		name: "HTTP only", about: "net/http, reads the body and answers 202", server: []string{"http"},
		open: func(w *world, n int, body []byte) ([]operation, func(), error) {
			return httpOperations(n, w.addr, "/fallback/orders/42?x=1", "", body, http.StatusAccepted)
		},
	},
	{
		name: "fallback", about: "fallback serve", server: []string{"fallback"},
		open: func(w *world, n int, body []byte) ([]operation, func(), error) {
			return httpOperations(n, w.addr, "/fallback/orders/42?x=1", "", body, http.StatusAccepted)
		},
	},
	{
		name: "article", about: "dial, declare, publish, close for each request", server: []string{"article"},
		open: func(w *world, n int, body []byte) ([]operation, func(), error) {
			return httpOperations(n, w.addr, "/fallback", "", body, http.StatusAccepted)
		},
	},
	{
		name: "RabbitMQ HTTP API", about: "POST /api/exchanges/%2F/amq.default/publish",
		open: func(w *world, n int, body []byte) ([]operation, func(), error) {
			publish, err := json.Marshal(map[string]any{
				"properties":  map[string]any{"delivery_mode": 2, "content_type": "application/json"},
				"routing_key": topology.DefaultQueue, "payload_encoding": "base64", "payload": base64.StdEncoding.EncodeToString(body),
			})
			if err != nil {
				return nil, nil, err
			}
			password := topology.Demonstration(topology.Admin).Plain
			auth := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(topology.Admin+":"+password)) + "\r\n"
			return httpOperations(n, w.management, "/api/exchanges/%2F/amq.default/publish", auth, publish, http.StatusOK)
		},
	},
}

// openAMQP publishes what the server would, without HTTP: each operation waits for its confirm.
func openAMQP(w *world, n int, body []byte) ([]operation, func(), error) {
	conn, err := amqp.Dial(w.amqpURL)
	if err != nil {
		return nil, nil, err
	}
	var channels []*amqp.Channel
	for range 4 {
		ch, err := conn.Channel()
		if err == nil {
			err = ch.Confirm(false)
		}
		if err != nil {
			conn.Close()
			return nil, nil, err
		}
		channels = append(channels, ch)
	}
	message := sameMessage(body)
	operations := make([]operation, n)
	for i := range operations {
		ch := channels[i%len(channels)]
		operations[i] = func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", topology.DefaultQueue, true, false, message)
			if err != nil {
				return err
			}
			if acked, err := confirm.WaitContext(ctx); err != nil || !acked {
				return fmt.Errorf("confirm: %v %w", acked, err)
			}
			return nil
		}
	}
	return operations, func() { conn.Close() }, nil
}

// sameMessage is the message that the server makes of the generator's request.
func sameMessage(body []byte) amqp.Publishing {
	r := &envelope.Request{
		ID: "01a20262-fead-745d-a0dd-93831abf4e21", Method: "POST", Target: "/orders/42?x=1", Host: "127.0.0.1:34567",
		Scheme: "http", Proto: "HTTP/1.1", Remote: "127.0.0.1:45678", ReceivedAt: time.Now(), Body: body,
		Header: http.Header{"User-Agent": {"bench"}, "Content-Type": {"application/json"}, "Content-Length": {fmt.Sprint(len(body))}},
	}
	return amqp.Publishing{
		Headers: amqp.Table{rabbit.HeaderMetadata: string(r.Metadata())}, ContentType: "application/json",
		DeliveryMode: amqp.Persistent, MessageId: r.ID, Timestamp: r.ReceivedAt, Type: rabbit.MessageType, AppId: rabbit.AppID, Body: body,
	}
}

// serveHTTPOnly is what a server costs that does nothing.
func serveHTTPOnly(addr string) error {
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, `{"id":"01a20262-fead-745d-a0dd-93831abf4e21","queue":"FallbackAPIQueue","received_at":"2026-11-22T08:32:51.885177639Z"}`+"\n")
	}))
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
