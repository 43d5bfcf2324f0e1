package outbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// BenchmarkRelay drains prefilled outboxes into a quorum queue, in turns with a bare publisher that
// sends the same messages with as many in flight. The bare publisher measures what the broker
// accepts in the same minutes, on the same machine.
func BenchmarkRelay(b *testing.B) {
	const rows = 20_000
	s := outboxtest.New(b)
	var relayed, bare time.Duration
	for b.Loop() {
		relayed += drain(b, s, rows)
		bare += pipeline(b, s, rows)
	}
	total := float64(rows * b.N)
	b.ReportMetric(total/relayed.Seconds(), "relayed/s")
	b.ReportMetric(total/bare.Seconds(), "bare/s")
	b.ReportMetric(100*bare.Seconds()/relayed.Seconds(), "%")
}

// BenchmarkRelayWithManyHeldRows drains outboxes while a hundred thousand other aggregates have
// a held row.
func BenchmarkRelayWithManyHeldRows(b *testing.B) {
	const rows = 10_000
	s := outboxtest.New(b)
	s.Exec(`INSERT INTO outbox_held (seq, aggregate, reason, attempts, due, kind)
		SELECT -g, 'held-' || g, 'test', 1, 'infinity', 'quarantined' FROM generate_series(1, 100000) g`)
	var relayed time.Duration
	for b.Loop() {
		relayed += drain(b, s, rows)
	}
	b.ReportMetric(float64(rows*b.N)/relayed.Seconds(), "relayed/s")
}

// fill inserts rows with a payload of about 300 bytes, as Append does.
func fill(s *outboxtest.Env, rows int) {
	s.Exec(`INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers)
		SELECT gen_random_uuid(), 'note', 'aggregate-' || g % 500, 'note.taken',
			json_build_object('on', 'aggregate-' || g % 500, 'n', g, 'text', repeat('x', 260)),
			'{"source":"/notes","dataschema":"urn:quadrille:note.taken:1",
			"correlationid":"0190a0e0-0000-7000-8000-000000000001",
			"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
			"time":"2026-01-02T03:04:05.678901Z"}'
		FROM generate_series(1, $1) g`, rows)
}

// drain fills the outbox and returns how long a relay takes to publish it.
func drain(b *testing.B, s *outboxtest.Env, rows int) time.Duration {
	b.Helper()
	fill(s, rows)
	r := s.Relay(s.Out)
	began := time.Now()
	stop := s.Run(r)
	s.WaitFor("all rows are published", func() bool { return r.Stats().Published == int64(rows) })
	took := time.Since(began)
	stop()
	purge(b, s)
	return took
}

func purge(b *testing.B, s *outboxtest.Env) {
	b.Helper()
	if _, err := s.Admin.QueuePurge(s.Queue, false); err != nil {
		b.Fatal(err)
	}
}

// pipeline publishes messages without a relay.
func pipeline(b *testing.B, s *outboxtest.Env, rows int) time.Duration {
	b.Helper()
	messages := make([]rabbit.Message, rows)
	history, err := s.Out.History(context.Background(), "aggregate-1")
	if err != nil || len(history) == 0 {
		b.Fatalf("no rows to publish: %v", err)
	}
	for i := range messages {
		record := history[0]
		record.ID, record.Sequence = events.NewID(), int64(i+1)
		messages[i] = rabbit.Message{Exchange: outboxtest.Exchange, Key: record.Type,
			Publishing: rabbit.Publishing(record)}
	}
	began := time.Now()
	session, err := rabbit.Open(context.Background(), s.AMQP, "bare")
	if err != nil {
		b.Fatal(err)
	}
	defer session.Close()
	p, err := rabbit.NewPublisher(session)
	if err != nil {
		b.Fatal(err)
	}
	const chunk, depth = 250, 750 // as the relay: chunkSize, and chunksInFlight of them
	var inFlight []*rabbit.Pending
	for len(messages) > 0 || len(inFlight) > 0 {
		if len(messages) > 0 && len(inFlight) <= depth-chunk {
			sent, err := p.Publish(messages[:chunk])
			if err != nil {
				b.Fatal(err)
			}
			inFlight, messages = append(inFlight, sent...), messages[chunk:]
			continue
		}
		if got, why, err := p.Wait(context.Background(), inFlight[0]); err != nil ||
			got != rabbit.Confirmed {
			b.Fatalf("outcome %d (%v), error %v; want a confirm", got, why, err)
		}
		inFlight = inFlight[1:]
	}
	took := time.Since(began)
	purge(b, s)
	return took
}
