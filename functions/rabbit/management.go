package rabbit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Management asks RabbitMQ's management API what AMQP does not tell a user with few permissions.
type Management struct {
	base   *url.URL // with the password: never printed
	client *http.Client
}

// NewManagement takes the base URL with the user and password, for example http://monitor:password@localhost:15672.
func NewManagement(base string) (*Management, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, errors.New("the management API's URL cannot be parsed") // err would show it
	}
	// No proxy: the broker is a neighbour, and the password is for it alone.
	client := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{TLSHandshakeTimeout: 3 * time.Second}}
	return &Management{base: u, client: client}, nil
}

// QueueType is "quorum", "classic" or "stream".
func (m *Management) QueueType(ctx context.Context, vhost, queue string) (string, error) {
	var answer struct {
		Type string `json:"type"`
	}
	path := "/api/queues/" + url.PathEscape(vhost) + "/" + url.PathEscape(queue) + "?disable_stats=true&enable_queue_totals=true"
	if err := m.get(ctx, path, &answer); err != nil {
		return "", fmt.Errorf("type of queue %s: %w", queue, err)
	}
	return answer.Type, nil
}

func (m *Management) get(ctx context.Context, path string, answer any) error {
	base := url.URL{Scheme: m.base.Scheme, Host: m.base.Host, Path: strings.TrimRight(m.base.Path, "/")}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base.String()+path, nil)
	if err != nil {
		return errors.New("bad management URL")
	}
	password, _ := m.base.User.Password()
	request.SetBasicAuth(m.base.User.Username(), password)
	response, err := m.client.Do(request)
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
	default:
		return fmt.Errorf("the management API answered %s", response.Status)
	}
	return json.NewDecoder(response.Body).Decode(answer)
}
