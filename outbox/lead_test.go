package outbox_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/lib/pq"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// replica returns an outbox and a relay with a connection pool of their own, as in another process.
func replica(t *testing.T, s *outboxtest.Env) (*outbox.Outbox, *outbox.Relay) {
	t.Helper()
	out := outbox.New(outboxtest.OpenDB(t, s.Database))
	return out, s.Relay(out)
}

func TestOneReplicaLeadsAndAnotherFollows(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	_, a := replica(t, s)
	_, b := replica(t, s)
	stops := map[*outbox.Relay]func(){a: s.Run(a), b: s.Run(b)}
	s.WaitFor("one replica leads", func() bool { return a.Stats().Leading || b.Stats().Leading })
	leader, other := a, b
	if b.Stats().Leading {
		leader, other = b, a
	}
	for n := range 20 {
		s.Await(s.Queue, s.AppendNotes(outboxtest.Aggregate(n), 1))
		if other.Stats().Leading {
			t.Fatal("both replicas lead")
		}
	}
	s.WaitFor("all is settled", func() bool { return leader.Stats().Published == 20 })
	stops[leader]()
	s.Await(s.Queue, s.AppendNotes("after", 1))
	s.WaitFor("the successor has published the event",
		func() bool {
			s := other.Stats()
			return s.Published == 1 && s.Confirmed == 1 && s.Latency.Count == 1 && s.Leading &&
				s.Held+s.Anomalies+s.Unrouted+s.Lost == 0
		})
	s.ExpectNoMore(s.Queue) // nothing is published twice after an orderly stop
}

// A standby forwards its nudges to the leader.
func TestStandbyNudgesTheLeader(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	s.Run(s.Relay(s.Out))
	s.Await(s.Queue, s.AppendNotes("a", 1)) // the first relay leads
	listener := pq.NewListener(s.Database, time.Second, time.Second, nil)
	t.Cleanup(func() { _ = listener.Close() })
	if err := listener.Listen("outbox"); err != nil {
		t.Fatal(err)
	}
	out, standby := replica(t, s)
	s.Run(standby)
	out.Nudge()
	deadline := time.NewTimer(outboxtest.Timeout)
	defer deadline.Stop()
	select {
	case n := <-listener.Notify:
		if n == nil || n.Extra != "" {
			t.Errorf("notification %+v, want one without a payload", n)
		}
	case <-deadline.C:
		t.Fatal("the standby forwarded no nudge")
	}
}

func TestLeaderReceivesNotifications(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	r := s.Relay(s.Out)
	outbox.Listen(t, r)
	s.WaitFor("a notification becomes a nudge", func() bool {
		s.Exec(`NOTIFY outbox`)
		return outbox.Nudged(s.Out)
	})
}

// A leader that was superseded cannot write the cursor any more. It starts again as a replica.
func TestSupersededLeaderWritesNothing(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	proxy := outboxtest.NewProxy(t, s.AMQP)
	r := s.Relay(s.Out)
	r.URL = proxy.URL
	s.Run(r)
	s.Await(s.Queue, s.AppendNotes("a", 1))
	s.WaitFor("the first event is settled", func() bool { return r.Stats().Published == 1 })
	proxy.Hold(outboxtest.FromBroker) // the relay awaits a confirm
	ids := s.AppendNotes("a", 2)
	s.Await(s.Queue, ids)
	s.Exec(`UPDATE leaders SET token = token + 1`) // as another leader does
	s.Exec(`UPDATE outbox_cursor SET epoch = epoch + 1, txid = pg_current_xact_id()`)
	epoch := s.Count(`SELECT epoch FROM outbox_cursor`)
	before := s.Count(`SELECT xmin::text::bigint FROM outbox_cursor`)
	proxy.Release()
	s.WaitFor("the relay leads with another epoch", func() bool {
		return s.Count(`SELECT epoch FROM outbox_cursor`) > epoch
	})
	if r.Stats().Published > 2 {
		t.Errorf("stats %+v", r.Stats())
	}
	again := s.Receive(s.Queue, 1)
	if again[0].MessageId != ids[0] {
		t.Errorf("received %s: the superseded leader has moved the cursor (xmin %d)", again[0].MessageId,
			before)
	}
}

// OUT-08: after a crash between the confirm and the write of the cursor, the event is published
// again without any change.
func TestRepeatedEventIsIdentical(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	stop := s.Run(s.Relay(s.Out))
	s.Await(s.Queue, s.AppendNotes("a", 0))
	s.WaitFor("the window is closed", func() bool {
		return s.Count(
			`SELECT count(*) FROM outbox_cursor WHERE a::text = b::text AND a::text <> '3:3:'`) == 1
	})
	lock := s.Begin() // the relay cannot write its cursor
	if _, err := lock.Exec(`SELECT FROM outbox_cursor FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	ids := s.AppendNotes("a", 1, 2, 3)
	first := s.Receive(s.Queue, 3)
	s.WaitFor("the relay waits to write its cursor", func() bool {
		return s.Count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND wait_event_type = 'Lock'`) == 1
	})
	stop() // before the cursor is written
	s.Commit(lock)
	s.Run(s.Relay(outbox.New(s.DB)))
	second := s.Receive(s.Queue, 3)
	if !slices.Equal(outboxtest.MessageIDs(first), ids) ||
		!slices.Equal(outboxtest.MessageIDs(second), ids) {
		t.Fatalf("appended %v, received %v and %v", ids, outboxtest.MessageIDs(first),
			outboxtest.MessageIDs(second))
	}
	for i := range first {
		if !sameMessage(first[i], second[i]) {
			t.Errorf("the two messages differ:\n%+v\n%+v", first[i], second[i])
		}
	}
}

func sameMessage(a, b amqp.Delivery) bool {
	for key, value := range a.Headers {
		if b.Headers[key] != value {
			return false
		}
	}
	return len(a.Headers) == len(b.Headers) && bytes.Equal(a.Body, b.Body) &&
		a.Timestamp.Equal(b.Timestamp) &&
		a.MessageId == b.MessageId && a.Type == b.Type && a.CorrelationId == b.CorrelationId &&
		a.AppId == b.AppId && a.DeliveryMode == b.DeliveryMode
}

// OUT-12: a broker that cannot be reached costs no row an attempt.
func TestUnreachableBrokerSpendsNoAttempt(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	proxy := outboxtest.NewProxy(t, s.AMQP)
	r := s.Relay(s.Out)
	r.URL = proxy.URL
	s.Run(r)
	s.Await(s.Queue, s.AppendNotes("a", 1))
	proxy.Down()
	var ids []string
	for n := range 50 {
		ids = append(ids, s.AppendNotes(outboxtest.Aggregate(n), 1)...)
	}
	s.WaitFor("the relay has lost its session", func() bool { return !r.Stats().Leading })
	proxy.Up()
	s.Await(s.Queue, ids)
	if n := s.Count(`SELECT count(*) FROM outbox_held`); n != 0 {
		t.Errorf("%d rows are held, want none", n)
	}
}
