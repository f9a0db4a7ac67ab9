package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"fallback/functions/config"
	"fallback/functions/rabbit"
	"fallback/functions/telemetry"
)

// quiet is how long nothing may come before a queue counts as read to its end.
const quiet = 2 * time.Second

// mostInHand bounds how many messages a command keeps in hand: those that it passes over stay so until it ends, since
// they would come again at once.
const mostInHand = 100_000

// openSource is a source of one of the queues, for a command.
func openSource(w world, queue func(config.Config) string) (*rabbit.Source, config.Config, error) {
	c, err := config.Load(w.lookup, "AMQP_SERVER_URL")
	if err != nil {
		return nil, c, err
	}
	log := telemetry.Logger(w.stderr, c.LogFormat, max(c.LogLevel, slog.LevelWarn)) // what goes well, the command says itself
	return rabbit.NewSource(rabbit.SourceOptions{URL: c.AMQPServerURL.Reveal(), Queue: queue(c), Log: log}), c, nil
}

// each calls visit for each message that is on the queue now, the first first, until there is none for a moment, or visit
// says stop. What visit does not settle stays in hand, and goes back when the source is closed or given back.
func each(ctx context.Context, s *rabbit.Source, most int, visit func(*rabbit.Delivery) (settled, goOn bool, err error)) (kept []*rabbit.Delivery, err error) {
	waiting, err := s.Waiting(ctx)
	if err != nil || waiting == 0 {
		return nil, err
	}
	if err := s.Take(ctx, min(waiting, most)); err != nil {
		return nil, err
	}
	for range waiting { // and not what comes meanwhile, nor what comes again
		timed, cancel := context.WithTimeout(ctx, quiet)
		d, err := s.Next(timed)
		cancel()
		if err != nil {
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				err = nil
			}
			return kept, err
		}
		settled, goOn, err := visit(d)
		if !settled {
			kept = append(kept, d)
		}
		if err != nil || !goOn {
			return kept, err
		}
	}
	return kept, nil
}

// giveBack returns what was kept, in its order.
func giveBack(s *rabbit.Source, kept []*rabbit.Delivery) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = s.Stop(ctx) // first: what goes back would come again at once
	for _, d := range kept {
		_ = d.Return() // it goes back with the connection otherwise
	}
	_, _ = s.Left(ctx) // so that who looks next sees all of it, in order
}

// selection is which parked requests a command is about.
type selection struct {
	ids []string
	all bool
}

func (s *selection) flags(cmd *cobra.Command, verb string) {
	cmd.Flags().StringSliceVar(&s.ids, "id", nil, verb+" the request with this id; may be given more than once")
	cmd.Flags().BoolVar(&s.all, "all", false, verb+" all of them")
}

func (s *selection) check() error {
	if s.all == (len(s.ids) > 0) {
		return usageError{errors.New("say which: --id ID, or --all")}
	}
	return nil
}

func (s *selection) holds(id string) bool { return s.all || slices.Contains(s.ids, id) }

// missing are the ids that were asked for and not found.
func (s *selection) missing(found []string) error {
	var missing []string
	for _, id := range s.ids {
		if !slices.Contains(found, id) {
			missing = append(missing, id)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("not on the queue: %s (fallback peek parked shows what is)", strings.Join(missing, ", "))
	}
	return nil
}

// outcome is what `redrive` and `discard` did.
type outcome struct {
	Queue string   `json:"queue"`
	Done  []string `json:"ids"`
	Left  int      `json:"left"` // on the queue, in the end
}

// settleParked does something with each of the selected parked requests, one after the other, at the rate, and says which.
func settleParked(ctx context.Context, w world, which selection, perSecond float64, settle func(context.Context, config.Config, *rabbit.Delivery) error, progress func(done, of int)) (outcome, error) {
	source, c, err := openSource(w, func(c config.Config) string { return c.Topology.Parked })
	if err != nil {
		return outcome{}, err
	}
	defer source.Close()
	out := outcome{Queue: c.Topology.Parked, Done: []string{}}
	total, err := source.Waiting(ctx)
	if err != nil {
		return out, err
	}
	if !which.all {
		total = len(which.ids)
	}
	limit := rate.Inf
	if perSecond > 0 {
		limit = rate.Limit(perSecond)
	}
	limiter := rate.NewLimiter(limit, 1)
	ahead := mostInHand
	if which.all { // then none is passed over
		ahead = 32
	}
	kept, err := each(ctx, source, ahead, func(d *rabbit.Delivery) (bool, bool, error) {
		if !which.holds(d.ID()) {
			return false, true, nil
		}
		if err := limiter.Wait(ctx); err != nil {
			return false, false, err
		}
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second) // what is begun is finished
		defer cancel()
		if err := settle(bounded, c, d); err != nil {
			return false, false, fmt.Errorf("%s: %w", d.ID(), err)
		}
		out.Done = append(out.Done, d.ID())
		progress(len(out.Done), total)
		return true, ctx.Err() == nil, nil
	})
	giveBack(source, kept)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if left, e := source.Left(last); e == nil {
		out.Left = left
	}
	if ctx.Err() != nil {
		return out, errors.New("interrupted: the rest is parked as it was")
	}
	switch {
	case err != nil:
		return out, err
	case which.all && out.Left > 0:
		return out, fmt.Errorf("%d are still parked: they came meanwhile, or are in the hands of another; try again", out.Left)
	}
	return out, which.missing(out.Done)
}
