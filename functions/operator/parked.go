package operator

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"fallback/functions/drain"
	"fallback/functions/rabbit"
)

// Selection is which parked requests are meant: all, or those with these ids.
type Selection struct {
	IDs []string
	All bool
}

func (s Selection) holds(id string) bool { return s.All || slices.Contains(s.IDs, id) }

// Outcome is what was done.
type Outcome struct {
	Queue string   `json:"queue"`
	Done  []string `json:"ids"`
	Left  int      `json:"left"` // on the queue, at the end; -1 if that is not known
}

// Redrive puts parked requests on the main queue, as new, and takes each off the parked one when the broker has
// confirmed that; no more of them a second than perSecond, 0 is no limit. progress hears how many are done, of how
// many, after each. An error may come beside an outcome: what that names is done. It says that ctx has
// ended, which ids were not found, or that some are still parked; one of the broker wraps a [rabbit.Failure].
func (o *Operator) Redrive(ctx context.Context, which Selection, perSecond float64,
	progress func(done, of int)) (Outcome, error) {
	limit := rate.Inf
	if perSecond > 0 {
		limit = rate.Limit(perSecond)
	}
	limiter := rate.NewLimiter(limit, 1)
	return o.settleParked(ctx, which, progress, func(d *rabbit.Delivery) error {
		if err := limiter.Wait(ctx); err != nil {
			return err
		}
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
		defer cancel()
		return d.Move(bounded, o.config.Topology.Main, drain.Fresh(time.Now()))
	})
}

// Discard takes parked requests off their queue, and keeps them nowhere. progress and the error are as Redrive's.
func (o *Operator) Discard(ctx context.Context, which Selection, progress func(done, of int)) (Outcome, error) {
	return o.settleParked(ctx, which, progress, (*rabbit.Delivery).Done)
}

// settleParked does something with each of the selected requests, one after the other, and says which.
func (o *Operator) settleParked(ctx context.Context, which Selection, progress func(done, of int),
	settle func(*rabbit.Delivery) error) (Outcome, error) {
	out := Outcome{Queue: o.config.Topology.Parked, Done: []string{}, Left: -1}
	source := o.source(out.Queue)
	defer source.Close()
	waiting, err := source.Waiting(ctx)
	if err != nil {
		return out, err
	}
	total, most := len(which.IDs), MostUnacked
	if which.All {
		total, most = waiting, 32 // none is passed over
	}
	unsettled, err := each(ctx, source, most, func(d *rabbit.Delivery) (deed, error) {
		if !which.holds(d.ID()) {
			return nothing, nil
		}
		if err := settle(d); err != nil {
			return nothing, fmt.Errorf("%s: %w", d.ID(), err)
		}
		out.Done = append(out.Done, d.ID())
		progress(len(out.Done), total)
		if ctx.Err() != nil {
			return settled, errEnough
		}
		return settled, nil
	})
	requeue(source, unsettled)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), requeueTime)
	defer cancel()
	if left, e := source.Left(last, math.MaxInt); e == nil {
		out.Left = left
	}
	switch {
	case ctx.Err() != nil:
		return out, errors.New("interrupted: the rest is parked as it was")
	case err != nil:
		return out, err
	case which.All && out.Left > 0:
		return out, fmt.Errorf("%d are still parked: they came meanwhile, or another has them; try again", out.Left)
	}
	return out, which.missing(out.Done, len(unsettled), waiting)
}

// missing are the ids that were asked for and not found among the first of the waiting requests; passed is how many of
// those were looked at and left.
func (s Selection) missing(found []string, passed, waiting int) error {
	var missing []string
	for _, id := range s.IDs {
		if !slices.Contains(found, id) {
			missing = append(missing, id)
		}
	}
	ids, looked := strings.Join(missing, ", "), passed+len(found)
	switch {
	case len(missing) == 0:
		return nil
	case passed >= MostUnacked && looked < waiting:
		return fmt.Errorf("not among the first %d of the %d on the queue, and no more are looked at: %s (redrive or "+
			"discard some of the first, which fallback peek parked shows, and try again)", looked, waiting, ids)
	default:
		return fmt.Errorf("not on the queue: %s (fallback peek parked shows what is)", ids)
	}
}
