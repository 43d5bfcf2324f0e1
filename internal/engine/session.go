package engine

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/internal/pg"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/topology"
)

const (
	deadPrefetch = 20 // dead letters may be large, and parking them is not urgent
	// breakTimeout is for begun work when the session breaks, before the next one begins.
	breakTimeout = time.Second
	// identityTimeout is how long the beginning of a session waits for the identity of the database.
	identityTimeout = 5 * time.Second
	// renewIdle is how long a session may be without a delivery before another one replaces it. If
	// a queue is deleted and declared again at once, RabbitMQ may keep the consumer of the old one:
	// everything is delivered to its channel, which drops it. Only another channel helps, and nothing
	// else tells such a session from one of an empty queue.
	renewIdle = 10 * time.Minute
)

// sessions are those of one consumer with the broker: one at a time for its queue, and one for its
// dead letters.
type sessions struct {
	config   Config
	batches  *batches
	prefetch prefetch // of the next session for the queue
	health   health
	identity atomic.Pointer[string] // of the database, as last read
	inHand   sync.WaitGroup         // the lanes of all sessions
	renewed  bool                   // the last session ended because it was idle
}

// run consumes until ctx is done.
func (s *sessions) run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { rabbit.Supervise(ctx, s.config.Log, s.session) })
	size := prefetch{full: s.config.Bounds.Prefetch}
	running.Go(func() {
		rabbit.Supervise(ctx, s.config.Log, func(ctx context.Context) error {
			err := s.consumeDead(ctx, min(deadPrefetch, size.now(time.Now())))
			size.adjust(err, time.Now())
			return err
		})
	})
	running.Wait()
	s.inHand.Wait()
}

// session is one session with the broker.
func (s *sessions) session(ctx context.Context) error {
	err := s.consume(ctx)
	if ctx.Err() == nil && !errors.Is(err, rabbit.ErrIdle) {
		s.health.ended(err, time.Now())
		s.prefetch.adjust(err, time.Now())
	}
	s.renewed = errors.Is(err, rabbit.ErrIdle)
	return err
}

// renewIdle is how long a session may be without a delivery.
func (s *sessions) renewIdle() time.Duration { return cmp.Or(s.config.RenewIdle, renewIdle) }

// consume hands the deliveries of one session to lanes by their subject. It returns
// rabbit.ErrIdle when the session had none for renewIdle.
func (s *sessions) consume(ctx context.Context) error {
	deliveries, err := s.subscribe(ctx, "consume", topology.QueueOf(s.config.Name),
		s.prefetch.now(time.Now()))
	if err != nil {
		return err
	}
	defer deliveries.Close()
	s.health.began(time.Now())
	if !s.renewed {
		s.config.Log.Info().Str("queue", topology.QueueOf(s.config.Name)).Msg("consuming")
	}
	seed := maphash.MakeSeed()
	lanes := make([]*lane, s.config.Bounds.Lanes)
	var running sync.WaitGroup
	for i := range lanes {
		// With room for the whole prefetch the dispatcher never waits for a lane.
		lanes[i] = &lane{batches: s.batches, deliveries: deliveries,
			in: make(chan arrival, s.config.Bounds.Prefetch)}
		running.Go(func() { lanes[i].run(ctx) })
	}
	s.inHand.Go(running.Wait)
	idle := time.NewTimer(s.renewIdle())
	defer idle.Stop()
	unused := false
	for taking := true; taking; {
		select {
		case d, ok := <-deliveries.C():
			if taking = ok; ok {
				idle.Reset(s.renewIdle())
				lane := s.batches.handlers.laneOf(maphash.String(seed, subjectOf(d)), d.Type)
				lanes[lane].in <- arrival{d, time.Now()}
			}
		case <-idle.C:
			unused, taking = true, false
		case <-ctx.Done():
			taking = false
		}
	}
	for _, l := range lanes {
		close(l.in)
	}
	if ctx.Err() != nil {
		_ = deliveries.Stop() // the session is closed anyway
		waitAtMost(&running, s.config.Bounds.ShutdownTimeout)
	} else {
		// What the lanes still handle can no longer be acknowledged and is delivered again, preferably
		// as a duplicate; but a slow handler must not delay the next session.
		waitAtMost(&running, breakTimeout)
	}
	if unused {
		return rabbit.ErrIdle
	}
	return over(deliveries)
}

// over returns the reason why there are no more deliveries.
func over(deliveries *rabbit.Deliveries) error {
	if err := deliveries.Err(); err != nil {
		return err
	}
	return rabbit.ErrClosed
}

func subjectOf(d amqp.Delivery) string {
	for _, key := range []string{"ce-subject", "cloudEvents_subject", "cloudEvents:subject"} {
		if s, ok := d.Headers[key].(string); ok {
			return s
		}
	}
	return ""
}

// subscribe opens a session on one of the service's queues.
func (s *sessions) subscribe(ctx context.Context, name, queue string,
	prefetch int) (*rabbit.Deliveries, error) {
	session, err := rabbit.Open(ctx, s.config.URL, s.config.Name+"/"+name)
	if err != nil {
		return nil, err
	}
	if s.config.Ready != nil {
		err = s.config.Ready(session)
	}
	var deliveries *rabbit.Deliveries
	if err == nil {
		deliveries, err = rabbit.Subscribe(session, queue, s.database(ctx), prefetch,
			s.config.Bounds.PrefetchBytes)
	}
	if err != nil {
		session.Close()
		return nil, err
	}
	return deliveries, nil
}

// database returns the identity of the database, for the broker's list of consumers. Each session
// reads it, since a database may be restored while replicas run. If the database does not answer,
// the last identity is used, so that the session begins nevertheless.
func (s *sessions) database(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, identityTimeout)
	defer cancel()
	if identity, err := pg.Identity(ctx, s.config.DB); err == nil {
		s.identity.Store(&identity)
		return identity
	}
	if known := s.identity.Load(); known != nil {
		return *known
	}
	return ""
}

// consumeDead parks what the broker gave up to deliver. It is evidence only: the event may have
// taken effect, so nothing goes back from there.
func (s *sessions) consumeDead(ctx context.Context, prefetch int) error {
	deliveries, err := s.subscribe(ctx, "dead", topology.DeadQueueOf(s.config.Name), prefetch)
	if err != nil {
		return err
	}
	defer deliveries.Close()
	idle := time.NewTimer(s.renewIdle())
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-idle.C:
			return rabbit.ErrIdle
		case d, ok := <-deliveries.C():
			if !ok {
				return over(deliveries)
			}
			idle.Reset(s.renewIdle())
			record, why := s.batches.decoder.dead(d)
			d.Exchange, d.RoutingKey = "dead", record.Type
			if !s.batches.keeper.park(ctx, d, record, why) {
				return ctx.Err()
			}
			if err := deliveries.Ack(d); err != nil {
				return err
			}
		}
	}
}
