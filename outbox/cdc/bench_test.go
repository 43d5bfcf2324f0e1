package cdc_test

import (
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/outbox"
	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// BenchmarkSources publishes the same rows through the window and through the stream in turns. The
// rows are committed a hundred at a time.
func BenchmarkSources(b *testing.B) {
	const rows, each = 20_000, 100
	s := outboxtest.New(b)
	took := map[outbox.SourceName]time.Duration{}
	for b.Loop() {
		for _, source := range []outbox.SourceName{outbox.FromWindow, outbox.FromStream} {
			r := s.Relay(s.Out)
			r.Source = cdcSource(b, s)
			if err := s.Out.UseSource(b.Context(), source); err != nil {
				b.Fatal(err)
			}
			stop := s.Run(r)
			awaitLeader(s, source, r)
			began := time.Now()
			for range rows / each {
				s.Exec(`INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers)
					SELECT gen_random_uuid(), 'note', 'aggregate-' || g % 500, 'note.taken',
						json_build_object('on', 'aggregate-' || g % 500, 'n', g, 'text', repeat('x', 260)),
						'{"source":"/notes","dataschema":"urn:quadrille:note.taken:1",
						"correlationid":"0190a0e0-0000-7000-8000-000000000001",
						"time":"2026-01-02T03:04:05.678901Z"}' FROM generate_series(1, $1) g`, each)
			}
			s.WaitFor("all rows are published", func() bool { return r.Stats().Published >= rows })
			took[source] += time.Since(began)
			stop()
			if _, err := s.Admin.QueuePurge(s.Queue, false); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(rows*float64(b.N)/took[outbox.FromWindow].Seconds(), "window/s")
	b.ReportMetric(rows*float64(b.N)/took[outbox.FromStream].Seconds(), "stream/s")
}
