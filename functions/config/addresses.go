package config

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

const encoded = ", or what is special in its password is not percent-encoded: / is %2F, # is %23, ? is %3F, @ is %40"

// torn says whether a password with a special character in it may have been taken for the end of the user or the host,
// which would show the rest of it as an address: an @ comes after the host, and there is a password or what looks like
// a port.
func torn(u *url.URL) bool {
	return (u.User != nil || u.Port() != "") && strings.Contains(u.EscapedPath()+u.RawQuery+u.Fragment, "@")
}

// parse reads a URL of one of the schemes. No error shows any of it.
func parse(s Secret, what string, schemes ...string) (*url.URL, error) {
	u, err := url.Parse(s.Reveal())
	if err != nil || !slices.Contains(schemes, u.Scheme) || u.Host == "" || torn(u) {
		return nil, errors.New("not an " + what + " URL" + encoded)
	}
	return u, nil
}

// checkHTTP holds that nothing of a base URL is lost. A request has a query of its own.
func checkHTTP(s Secret) error {
	if s == "" {
		return nil
	}
	if _, err := parse(s, "HTTP", "http", "https"); err != nil {
		return err
	}
	if strings.ContainsAny(s.Reveal(), "?#") {
		return errors.New("what is behind a ? or # would have no effect; leave it out")
	}
	return nil
}

// The query parameters of a broker's URL that have an effect, of RabbitMQ's "URI query parameters"; the second need
// TLS.
var (
	parameters    = []string{"heartbeat", "channel_max", "auth_mechanism"}
	parametersTLS = []string{"cacertfile", "certfile", "keyfile", "server_name_indication"}
)

// brokerURL reads one, and holds that nothing of it is lost.
func brokerURL(s Secret) (*url.URL, error) {
	u, err := parse(s, "AMQP", "amqp", "amqps")
	if err != nil {
		return nil, err
	}
	if strings.Contains(s.Reveal(), "#") {
		return nil, errors.New("what is behind a # would have no effect; leave it out, or write %23 for it")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("what is behind the ? cannot be read")
	}
	for name := range query {
		switch {
		case slices.Contains(parameters, name), slices.Contains(parametersTLS, name) && u.Scheme == "amqps":
		case slices.Contains(parametersTLS, name):
			return nil, fmt.Errorf("%s has an effect with amqps:// only", name)
		default:
			known := strings.Join(slices.Concat(parameters, parametersTLS), ", ")
			return nil, errors.New("what is behind the ? has a name without an effect; there are " + known)
		}
	}
	return u, nil
}

// checkAddress holds that one can listen there: without a host, on every address.
func checkAddress(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil && port != "" {
		_, err = net.DefaultResolver.LookupPort(context.Background(), "tcp", port)
	}
	if err != nil || port == "" {
		return fmt.Errorf("%q is not host:port", address)
	}
	return nil
}
