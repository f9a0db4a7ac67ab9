package rabbit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// dialTimeout bounds everything up to a usable connection, its channels included: at most 8 round trips, and short
	// enough that a broker that comes back while a try hangs is found again within five seconds.
	dialTimeout = 3 * time.Second
	// writeTimeout bounds one write to the broker.
	writeTimeout = 3 * time.Second
	// heartbeat is asked for, unless the URL asks for another; the broker may want a shorter one.
	heartbeat = 10 * time.Second
	// frameSize is asked for, and is RabbitMQ's own frame_max; the broker may want smaller frames.
	frameSize = 128 << 10
)

// socketFunc makes a connection below TLS. Tests have their own; nil is the network's.
type socketFunc func(ctx context.Context, network, address string) (net.Conn, error)

// dial connects, for as long as ctx lasts. The URL may have RabbitMQ's "URI query parameters": auth_mechanism,
// heartbeat and channel_max, and with amqps cacertfile, certfile, keyfile and server_name_indication.
func dial(ctx context.Context, rawURL, name string, socket socketFunc) (*link, error) {
	uri, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	config, err := clientConfig(rawURL, uri)
	if err != nil {
		return nil, err
	}
	config.Properties = amqp.Table{"product": "fallback", "connection_name": name}
	if socket == nil {
		socket = (&net.Dialer{}).DialContext
	}
	conn, err := socket(ctx, "tcp", net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port)))
	if err != nil {
		return nil, err
	}
	l := &link{wire: newWire(conn, writeTimeout)}
	stop := l.endWith(ctx)
	err = l.open(ctx, uri, config)
	// When ctx has ended, it has closed the socket, and err says only that. ErrCredentials is kept: a broker takes
	// three seconds to refuse a password. It is a guess, which the library makes of any socket that closes at login.
	if !stop() && !errors.Is(err, amqp.ErrCredentials) {
		err = fmt.Errorf("it has not answered: %w", context.Cause(ctx))
	}
	if err != nil {
		_ = l.wire.Close()
		return nil, err
	}
	return l, nil
}

// open does the handshakes: TLS's, where the URL wants it, and AMQP's.
func (l *link) open(ctx context.Context, uri amqp.URI, config amqp.Config) error {
	var below net.Conn = l.wire
	if uri.Scheme == "amqps" {
		settings, err := tlsConfig(uri)
		if err != nil {
			return err
		}
		secured := tls.Client(l.wire, settings)
		if err := secured.HandshakeContext(ctx); err != nil {
			return err
		}
		below, l.secured = secured, secured.ConnectionState()
	}
	filter := newFrames(below)
	conn, err := amqp.Open(filter, config)
	if err != nil {
		return err
	}
	filter.largest.Store(int64(conn.Config.FrameSize))
	l.conn = conn
	return nil
}

// parseURL has errors that may be shown: where the URL cannot be read, the standard library quotes it, with the
// password.
func parseURL(rawURL string) (amqp.URI, error) {
	uri, err := amqp.ParseURI(rawURL)
	var quotes *url.Error
	if errors.As(err, &quotes) {
		err = errors.New("the broker's URL cannot be read: percent-encode what is special in its user and password")
	}
	return uri, err
}

// clientConfig is what the client library's own DialConfig would make of a URL.
func clientConfig(rawURL string, uri amqp.URI) (amqp.Config, error) {
	c := amqp.Config{Vhost: uri.Vhost, ChannelMax: uri.ChannelMax, FrameSize: frameSize, Heartbeat: heartbeat,
		Locale: "en_US"}
	// 0 turns it off; the library parses it, and does not export the field
	if u, err := url.Parse(rawURL); err == nil && u.Query().Has("heartbeat") {
		seconds, _ := strconv.Atoi(u.Query().Get("heartbeat"))
		c.Heartbeat = time.Duration(seconds) * time.Second
	}
	for _, mechanism := range uri.AuthMechanism {
		switch strings.ToUpper(mechanism) {
		case "PLAIN":
			c.SASL = append(c.SASL, uri.PlainAuth())
		case "AMQPLAIN":
			c.SASL = append(c.SASL, uri.AMQPlainAuth())
		case "EXTERNAL":
			c.SASL = append(c.SASL, &amqp.ExternalAuth{})
		default:
			return c, fmt.Errorf("the broker's URL has an unknown auth_mechanism: %q; there are plain, amqplain and "+
				"external", mechanism)
		}
	}
	if c.SASL == nil {
		c.SASL = []amqp.Authentication{uri.PlainAuth()}
	}
	return c, nil
}

// tlsConfig trusts the CA that the URL names, or else those of the system, and shows the client's certificate, if it
// names one.
func tlsConfig(uri amqp.URI) (*tls.Config, error) {
	c := &tls.Config{ServerName: uri.ServerName, MinVersion: tls.VersionTLS12}
	if c.ServerName == "" {
		c.ServerName = uri.Host
	}
	if uri.CACertFile != "" {
		pem, err := os.ReadFile(uri.CACertFile)
		if err != nil {
			return nil, fmt.Errorf("read CA certificate: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read CA certificate: %s has none", uri.CACertFile)
		}
	}
	if uri.CertFile != "" && uri.KeyFile != "" {
		certificate, err := tls.LoadX509KeyPair(uri.CertFile, uri.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("load client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{certificate}
	}
	return c, nil
}
