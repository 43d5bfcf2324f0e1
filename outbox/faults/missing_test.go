package faults_test

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// logged is a log that a test reads.
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

// A row of a window that is gone when it is to be published is not passed in silence.
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
	s.WaitFor("it is said", func() bool { return r.Stats().Anomalies > 0 && log.has("seq 3900") })
	// once it is known that it is not there, the others go on
	s.Await(s.Queue, append(ids[:3899:3899], ids[3900:]...))
}
