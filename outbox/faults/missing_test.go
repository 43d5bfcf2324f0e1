package faults_test

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// logged is a log whose text a test can read.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), s)
}

// A row of a window is deleted before the relay publishes it. The relay must report it instead of
// passing it in silence.
func TestMissingRowStopsTheWindow(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	proxy := outboxtest.NewProxy(t, s.AMQP)
	var log logged
	r := s.Relay(s.Out)
	r.URL, r.Log = proxy.URL, zerolog.New(&log)
	ids := s.AppendNotes("a", seq(1, 4000)...)
	proxy.Hold(outboxtest.FromBroker)
	s.Run(r)
	s.WaitFor("the relay connects", func() bool { return proxy.Waiting(outboxtest.FromBroker) })
	s.Exec(`CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN DELETE FROM outbox WHERE seq = 3900; RETURN NEW; END'`)
	s.Exec(`CREATE TRIGGER gone AFTER UPDATE OF last_seq ON outbox_cursor FOR EACH ROW
		WHEN (NEW.last_seq > 0 AND NEW.last_seq < 3000) EXECUTE FUNCTION gone()`)
	proxy.Release()
	s.WaitFor("the missing row is logged", func() bool {
		return r.Stats().Anomalies > 0 &&
			log.has("seq 3900")
	})
	// The next read of the window does not find the row, and the others are published.
	s.Await(s.Queue, append(ids[:3899:3899], ids[3900:]...))
}
