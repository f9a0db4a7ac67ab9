package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"fallback/functions/config"
	"fallback/functions/rabbit"
	"fallback/functions/telemetry"
)

const (
	// quiet is how long nothing may come before a queue counts as read to its end.
	quiet = 2 * time.Second
	// longestUnderWay bounds how long one message is waited for while something comes.
	longestUnderWay = 5 * time.Minute
)

// mostInHand bounds how many messages a command keeps in hand: those that it passes over stay so until it ends, since
// they would come again at once. The broker pays 5 kB for each: of 65,535, which is all that AMQP's 16 bits can say, one of
// 512 MB raised its alarm, and took no messages.
const mostInHand = 30_000

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
		d, err := nextSoon(ctx, s)
		if err != nil {
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				err = nil
			}
			return kept, err
		}
		settled, goOn, err := visit(d)
		if !settled {
			d.Forget() // a whole queue of bodies would not fit
			kept = append(kept, d)
		}
		if err != nil || !goOn {
			return kept, err
		}
	}
	return kept, nil
}

// nextSoon is the next message, or context.DeadlineExceeded when none comes and nothing of one.
func nextSoon(ctx context.Context, s *rabbit.Source) (d *rabbit.Delivery, err error) {
	for begin := time.Now(); time.Since(begin) < longestUnderWay; {
		timed, cancel := context.WithTimeout(ctx, quiet)
		d, err = s.Next(timed)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil || s.Quiet() >= quiet {
			break
		}
	}
	return d, err
}

// giveBack returns what was kept, in its order.
func giveBack(s *rabbit.Source, kept []*rabbit.Delivery) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = s.Stop(ctx) // first: what goes back would come again at once
	for _, d := range kept {
		_ = d.Return() // it goes back with the connection otherwise
	}
	for { // so that who looks next sees all of it, in order
		if left, err := s.Left(ctx, len(kept)); err != nil || left >= len(kept) {
			return
		}
	}
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

// missing are the ids that were asked for and not found among the first of the waiting requests; passed is how many of
// those were looked at and left.
func (s *selection) missing(found []string, passed, waiting int) error {
	var missing []string
	for _, id := range s.ids {
		if !slices.Contains(found, id) {
			missing = append(missing, id)
		}
	}
	ids, looked := strings.Join(missing, ", "), passed+len(found)
	switch {
	case len(missing) == 0:
		return nil
	case passed >= mostInHand && looked < waiting:
		return fmt.Errorf("not among the first %d of the %d on the queue, and no more are looked at: %s (redrive or discard some of the first, which fallback peek parked shows, and try again)", looked, waiting, ids)
	default:
		return fmt.Errorf("not on the queue: %s (fallback peek parked shows what is)", ids)
	}
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
	waiting, err := source.Waiting(ctx)
	if err != nil {
		return out, err
	}
	total := waiting
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
	if left, e := source.Left(last, math.MaxInt); e == nil {
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
	return out, which.missing(out.Done, len(kept), waiting)
}
