package engine

import (
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/inbox"
	"github.com/quadrille-go/quadrille/internal/logfields"
)

// aboutEvent returns what a line about an event says of it. A deadline has its key as its id.
func aboutEvent(e events.Event) logfields.Of {
	record := envelopeOf(e)
	record.ID = keyOf(e)
	return logfields.Of(record)
}

// aboutPending is aboutEvent for what waits. Its id is the one that the commands take.
func aboutPending(p inbox.Pending) logfields.Of {
	record := p.Record()
	record.ID, record.Type = p.Key, p.Type
	return logfields.Of(record)
}

// logHandled logs that an event has taken effect. It costs nothing while the level is higher.
func (t *transactor) logHandled(e events.Event) {
	if line := t.log.Debug(); line != nil {
		line.EmbedObject(aboutEvent(e)).Int("attempt", 1).Msg("event handled")
	}
}

// logRedone is logHandled for what has waited.
func (t *transactor) logRedone(list ...inbox.Pending) {
	for _, p := range list {
		if line := t.log.Debug(); line != nil {
			line.EmbedObject(aboutPending(p)).Int("attempt", p.Attempts+1).Str("kind", string(p.Kind)).
				Msg("event handled")
		}
	}
}

// logAnswered logs the answers to calls that were recorded.
func (t *transactor) logAnswered(batch []called, done map[inbox.Name]bool) {
	for _, r := range batch {
		if !done[inbox.Name{Owner: r.Owner, Key: r.Key}] {
			continue
		}
		if line := t.log.Debug(); line != nil {
			line = line.EmbedObject(aboutPending(r.Pending)).Int("attempt", r.Attempts+1)
			if r.answer != nil {
				line = line.Str("answer", r.answer.EventType())
			}
			line.Msg("call answered")
		}
	}
}
