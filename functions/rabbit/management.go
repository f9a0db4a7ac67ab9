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
	if err := m.getQueue(ctx, vhost, queue, "disable_stats=true&enable_queue_totals=true", &answer); err != nil {
		return "", fmt.Errorf("type of queue %s: %w", queue, err)
	}
	return answer.Type, nil
}

// QueueStats is what the broker's statistics say of a queue. They go through two hands, each of which moves them on every
// five seconds, so they are up to ten seconds late. Err says why they are not known: ErrUnroutable when there is no such
// queue, another error for a queue or a broker that has none yet.
type QueueStats struct {
	Queue string
	Type  string // "quorum", "classic" or "stream"
	State string // "running", or what is wrong
	// Messages are Ready, which nobody has taken, and Unacked, which are in a consumer's hands.
	Messages, Ready, Unacked, Consumers int
	// Messages a second: put on the queue by publishers, sent to consumers, and taken off by their acks. What the broker
	// itself moves (expired, dead-lettered) is in none of them.
	Published, Delivered, Acked float64
	Err                         error
}

// Queues is what the statistics say of each of the queues, in their order. The error says that the management API did not
// answer, or not to this user.
func (m *Management) Queues(ctx context.Context, vhost string, queues []string) ([]QueueStats, error) {
	rows := make([]QueueStats, len(queues))
	for i, queue := range queues { // and not all that the broker has: there may be thousands
		row, err := m.queue(ctx, vhost, queue)
		if err != nil && !errors.Is(err, ErrUnroutable) && !errors.Is(err, errNoStats) {
			return nil, fmt.Errorf("queue %s: %w", queue, err)
		}
		rows[i] = row
		rows[i].Queue, rows[i].Err = queue, err
	}
	return rows, nil
}

var errNoStats = errors.New("no statistics yet")

func (m *Management) queue(ctx context.Context, vhost, queue string) (QueueStats, error) {
	type rate struct {
		Rate float64 `json:"rate"`
	}
	var answer struct {
		Type      string `json:"type"`
		State     string `json:"state"`
		Messages  *int   `json:"messages"` // absent while there are no statistics
		Ready     int    `json:"messages_ready"`
		Unacked   int    `json:"messages_unacknowledged"`
		Consumers int    `json:"consumers"`
		Stats     struct {
			Published rate `json:"publish_details"`
			Delivered rate `json:"deliver_get_details"`
			Acked     rate `json:"ack_details"`
		} `json:"message_stats"`
	}
	const columns = "columns=type,state,messages,messages_ready,messages_unacknowledged,consumers,message_stats"
	err := m.getQueue(ctx, vhost, queue, columns, &answer)
	switch {
	case err != nil:
		return QueueStats{}, err
	case answer.Messages == nil:
		return QueueStats{}, errNoStats
	}
	return QueueStats{
		Type: answer.Type, State: answer.State,
		Messages: *answer.Messages, Ready: answer.Ready, Unacked: answer.Unacked, Consumers: answer.Consumers,
		Published: answer.Stats.Published.Rate, Delivered: answer.Stats.Delivered.Rate, Acked: answer.Stats.Acked.Rate,
	}, nil
}

var errNotFound = errors.New("the management API answered 404 Not Found")

// getQueue is get for one queue: ErrUnroutable when there is none.
func (m *Management) getQueue(ctx context.Context, vhost, queue, query string, answer any) error {
	err := m.get(ctx, "/api/queues/"+url.PathEscape(vhost)+"/"+url.PathEscape(queue)+"?"+query, answer)
	if errors.Is(err, errNotFound) {
		return ErrUnroutable
	}
	return err
}

// get asks, and reads the answer into answer.
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
	case http.StatusNotFound:
		return errNotFound
	default:
		return fmt.Errorf("the management API answered %s", response.Status)
	}
	return json.NewDecoder(response.Body).Decode(answer)
}
