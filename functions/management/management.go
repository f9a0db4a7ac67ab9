// Package management asks RabbitMQ's management API, over HTTP, what AMQP does not tell a user with few permissions:
// the type, the policy, the members and the figures of queues, and how the nodes are. Every question is bounded, and
// changes nothing. No error shows the password.
package management

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client is a user of a management API. It is safe for concurrent use.
type Client struct {
	base *url.URL // with the password: never printed
	http *http.Client
}

const (
	// timeout bounds a question, from its start to the end of the answer.
	timeout = 3 * time.Second
	// mostAnswer bounds an answer, in bytes. A queue takes a few thousand.
	mostAnswer = 8 << 20
)

// New takes the base URL with the user and password, for example http://monitor:password@localhost:15672. The error is
// of a URL that cannot be parsed.
func New(base string) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, errors.New("the management API's URL cannot be parsed") // err would show it
	}
	// No proxy: the broker is a neighbour, and the password is for it alone.
	return &Client{u, &http.Client{Timeout: timeout, Transport: &http.Transport{TLSHandshakeTimeout: timeout}}}, nil
}

// ErrNotFound is for what does not exist, or is not there for this user.
var ErrNotFound = errors.New("the management API answered 404 Not Found")

// get asks, and reads the answer into answer. The error wraps [ErrNotFound] or says how the API answered, or why it
// did not.
func (c *Client) get(ctx context.Context, path string, answer any) error {
	base := url.URL{Scheme: c.base.Scheme, Host: c.base.Host, Path: strings.TrimRight(c.base.Path, "/")}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base.String()+path, nil)
	if err != nil {
		return errors.New("bad management URL")
	}
	password, _ := c.base.User.Password()
	request.SetBasicAuth(c.base.User.Username(), password)
	response, err := c.http.Do(request)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL
		}
		return err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized:
		return errors.New("the management API answered 401: check the user and password in RABBITMQ_MANAGEMENT_URL")
	case http.StatusNotFound:
		return ErrNotFound
	default:
		return fmt.Errorf("the management API answered %s", response.Status)
	}
	return json.NewDecoder(io.LimitReader(response.Body, mostAnswer)).Decode(answer)
}

// WhoAmI is the user's name and tags, as the management API knows it; "somebody" where it does not say. The error says
// that it did not answer, or not to this user.
func (c *Client) WhoAmI(ctx context.Context) (name string, tags []string, err error) {
	var answer struct {
		Name string `json:"name"`
		Tags any    `json:"tags"` // a list since 3.9, before that a text
	}
	if err := c.get(ctx, "/api/whoami", &answer); err != nil {
		return "", nil, err
	}
	switch t := answer.Tags.(type) {
	case string:
		tags = strings.Split(t, ",")
	case []any:
		for _, tag := range t {
			tags = append(tags, fmt.Sprint(tag))
		}
	}
	return cmp.Or(answer.Name, "somebody"), tags, nil
}
