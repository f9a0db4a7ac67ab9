package management

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// Queue is what the management API says of a queue. Most of it is the broker's statistics, which go through two hands,
// each of which moves them on every five seconds: they are up to ten seconds late, and are missing in the first
// seconds of a queue's life.
type Queue struct {
	Name  string `json:"name"`
	Type  string `json:"type"`  // "quorum", "classic" or "stream"
	State string `json:"state"` // "running", or what is wrong
	// Err says what is not known: all but Name with [ErrNotFound], all but Name, Type and Arguments with
	// [ErrNoStatistics].
	Err error `json:"-"`

	// Messages are Ready, which nobody has taken, and Unacked, which a consumer has and has not settled.
	Messages  int   `json:"messages"`
	Ready     int   `json:"messages_ready"`
	Unacked   int   `json:"messages_unacknowledged"`
	Bytes     int64 `json:"message_bytes"`
	Consumers int   `json:"consumers"`
	Rates     Rates `json:"message_stats"`

	// Policy is the name of the policy that applies, and Definition what it and an operator's policy come to.
	Policy     string      `json:"policy"`
	Definition looseObject `json:"effective_policy_definition"`
	Arguments  looseObject `json:"arguments"`
	// Members are the nodes that have the queue, Online those of them that run.
	Members []string `json:"members"`
	Online  []string `json:"online"`
}

// Rates are how many messages a second publishers put on a queue, and consumers take off it by their acks. What the
// broker itself moves (expired, dead-lettered) is in none of them.
type Rates struct {
	Published rate `json:"publish_details"`
	Acked     rate `json:"ack_details"`
}

// ErrNoStatistics is of a queue, or a broker, that is a few seconds old.
var ErrNoStatistics = errors.New("no statistics yet")

// Queues are those of the names, in their order. The error says that the management API did not answer, or not to this
// user.
func (c *Client) Queues(ctx context.Context, vhost string, names []string) ([]Queue, error) {
	quoted := make([]string, len(names))
	for i, name := range names { // and not all that the broker has: there may be thousands
		quoted[i] = regexp.QuoteMeta(name)
	}
	query := url.Values{"page": {"1"}, "page_size": {"100"}, "use_regex": {"true"},
		"name": {"^(" + strings.Join(quoted, "|") + ")$"}}
	var answer struct {
		Items []struct {
			Queue
			Memory *int64 `json:"memory"` // comes with the statistics
		} `json:"items"`
	}
	if err := c.get(ctx, "/api/queues/"+url.PathEscape(vhost)+"?"+query.Encode(), &answer); err != nil {
		return nil, err
	}
	queues := make([]Queue, len(names))
	for i, name := range names {
		queues[i] = Queue{Name: name, Err: ErrNotFound}
		for _, q := range answer.Items {
			if q.Name != name {
				continue
			}
			if queues[i] = q.Queue; q.Memory == nil {
				queues[i].Err = ErrNoStatistics
			}
		}
	}
	return queues, nil
}

// QueueType is "quorum", "classic" or "stream", of this moment. The error wraps [ErrNotFound] when there is no such
// queue.
func (c *Client) QueueType(ctx context.Context, vhost, queue string) (string, error) {
	var answer struct {
		Type string `json:"type"`
	}
	path := "/api/queues/" + url.PathEscape(vhost) + "/" + url.PathEscape(queue)
	if err := c.get(ctx, path+"?disable_stats=true&enable_queue_totals=true", &answer); err != nil {
		return "", fmt.Errorf("type of queue %s: %w", queue, err)
	}
	return answer.Type, nil
}

// rate is a number that the broker wraps.
type rate float64

func (r *rate) UnmarshalJSON(raw []byte) error {
	var wrapped struct {
		Rate float64 `json:"rate"`
	}
	err := json.Unmarshal(raw, &wrapped)
	*r = rate(wrapped.Rate)
	return err
}

// looseObject is an object that the broker writes as [] when it is empty.
type looseObject map[string]any

func (o *looseObject) UnmarshalJSON(raw []byte) error {
	if strings.HasPrefix(string(raw), "[") || string(raw) == `""` {
		return nil
	}
	return json.Unmarshal(raw, (*map[string]any)(o))
}
