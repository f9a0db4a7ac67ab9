package rabbit

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// TestClientConfig holds what a broker's URL says beside where it is.
func TestClientConfig(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		url        string
		heartbeat  time.Duration
		channels   uint16
		vhost      string
		mechanisms string
	}{
		{"amqp://u:p@h/", 10 * time.Second, 0, "/", "PLAIN"},
		{"amqp://u:p@h/orders%2Fnew?heartbeat=2&channel_max=7", 2 * time.Second, 7, "orders/new", "PLAIN"},
		{"amqps://u:p@h?heartbeat=0&auth_mechanism=external&auth_mechanism=amqplain", 0, 0, "/", "EXTERNAL AMQPLAIN"},
	} {
		uri, err := parseURL(row.url)
		if err != nil {
			t.Fatal(err)
		}
		c, err := clientConfig(row.url, uri)
		if err != nil {
			t.Fatal(err)
		}
		var mechanisms []string
		for _, a := range c.SASL {
			mechanisms = append(mechanisms, a.Mechanism())
		}
		if c.Heartbeat != row.heartbeat || c.ChannelMax != row.channels || c.Vhost != row.vhost ||
			strings.Join(mechanisms, " ") != row.mechanisms {
			t.Errorf("%s: got heartbeat %s, %d channels, vhost %q, %q", row.url, c.Heartbeat, c.ChannelMax, c.Vhost,
				mechanisms)
		}
		if plain, ok := c.SASL[0].(*amqp.PlainAuth); ok && (plain.Username != "u" || plain.Password != "p") {
			t.Errorf("%s: another user", row.url)
		}
	}
}

// TestBadURL holds that an error about a URL shows nothing of it.
func TestBadURL(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"amqp://u:ge heim@h/", "amqp://u:geheim%@h/", "amqp://u:geheim/x@h/", "geheim://h/",
		"amqp://u:geheim@h/?auth_mechanism=magic", "amqp://u:geheim@h/?heartbeat=x"} {
		if _, err := dial(t.Context(), url, "test", nil); err == nil || strings.Contains(err.Error(), "geheim") ||
			strings.Contains(err.Error(), "ge heim") {
			t.Errorf("%s: got %v", url, err)
		}
	}
}

// TestDialTime holds that a broker which says nothing, as a frozen one does, is left in time, that the error says why,
// and that it does not hold up a program that is to end.
func TestDialTime(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		ends  time.Duration // of the context, by a cancel
		takes time.Duration
		cause error
	}{
		{"in time", time.Hour, dialTimeout, context.DeadlineExceeded},
		{"the program ends", time.Second, time.Second, context.Canceled},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &peer{greets: func(*visit) bool { return false }}
				life, cancel := context.WithCancel(t.Context())
				defer time.AfterFunc(row.ends, cancel).Stop()
				defer cancel()
				ctx, release := context.WithTimeout(life, dialTimeout)
				defer release()
				begin := time.Now()
				_, err := dial(ctx, "amqp://u:p@peer/", "test", p.socket)
				if took := time.Since(begin); took != row.takes || !errors.Is(err, row.cause) ||
					!strings.Contains(err.Error(), "it has not answered") {
					t.Errorf("after %s: %v", took, err)
				}
			})
		})
	}
}
