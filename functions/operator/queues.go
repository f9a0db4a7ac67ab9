package operator

import (
	"context"
	"errors"
	"time"

	"fallback/functions/management"
	"fallback/functions/rabbit"
)

// managementTime bounds what is asked of the management API.
const managementTime = 5 * time.Second

// QueueRow is a queue's figures.
type QueueRow struct {
	Queue     string `json:"queue"`
	Ready     int    `json:"ready"`
	Consumers int    `json:"consumers"`
	*QueueStats
	Error string `json:"error,omitempty"` // why the figures are not known
}

// QueueStats is what AMQP does not tell, from the management API; it is nil where that does not either.
type QueueStats struct {
	Type    string  `json:"type"`
	State   string  `json:"state"`
	Unacked int     `json:"unacked"`
	In      float64 `json:"in_per_second"`
	Out     float64 `json:"out_per_second"`
}

// Queues are all queues, the main one first. The figures are the management API's, where it is set; managementErr is
// its error, err wraps a [rabbit.Failure]. Those of AMQP are of this moment: the main queue's always, and all where the
// API is not set, or has failed.
func (o *Operator) Queues(ctx context.Context) (rows []QueueRow, managementErr, err error) {
	names := o.config.Topology.Queues()
	rows, managementErr = o.managementRows(ctx, names)
	ask := names[:1] // of this moment, where the statistics are seconds old
	if rows == nil {
		rows, ask = make([]QueueRow, len(names)), names
	}
	counts, err := rabbit.Count(ctx, o.config.AMQPServerURL.Reveal(), ask)
	if err != nil {
		return nil, managementErr, err
	}
	for i, q := range counts {
		if row := &rows[i]; q.Err == nil || row.Queue == "" {
			*row = QueueRow{q.Queue, q.Ready, q.Consumers, row.QueueStats, reason(q.Err)}
		}
	}
	return rows, managementErr, nil
}

// managementRows is nil without RABBITMQ_MANAGEMENT_URL.
func (o *Operator) managementRows(ctx context.Context, names []string) ([]QueueRow, error) {
	if o.config.ManagementURL == "" {
		return nil, nil
	}
	broker, err := management.New(o.config.ManagementURL.Reveal())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, managementTime)
	defer cancel()
	all, err := broker.Queues(ctx, o.config.VHost, names)
	if err != nil {
		return nil, err
	}
	rows := make([]QueueRow, len(all))
	for i, q := range all {
		rows[i] = QueueRow{Queue: q.Name, Ready: q.Ready, Consumers: q.Consumers, Error: reason(q.Err)}
		if q.Err == nil {
			rows[i].QueueStats = &QueueStats{q.Type, q.State, q.Unacked, float64(q.Rates.Published),
				float64(q.Rates.Acked)}
		}
	}
	return rows, nil
}

func reason(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, rabbit.ErrUnroutable), errors.Is(err, management.ErrNotFound):
		return "does not exist"
	case errors.Is(err, rabbit.ErrNotAllowed):
		return "not visible to this user"
	case errors.Is(err, rabbit.ErrNotAsked):
		return "not asked"
	default:
		return err.Error()
	}
}
