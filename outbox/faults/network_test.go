package faults_test

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/outbox/internal/outboxtest"
)

// PUB-07: the exchange is deleted while messages are on their way to it.
func TestDeletedExchangeLosesNothing(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	proxy := outboxtest.NewProxy(t, s.AMQP)
	r := s.Relay(s.Out)
	r.URL = proxy.URL
	s.Run(r)
	s.Await(s.Queue, s.AppendNotes("a", 0))
	s.AwaitSettled()
	proxy.Hold(outboxtest.ToBroker)
	var numbers []int
	for n := range 500 {
		numbers = append(numbers, n+1)
	}
	ids := s.AppendNotes("a", numbers...)
	s.WaitFor("messages are on their way", func() bool { return proxy.Waiting(outboxtest.ToBroker) })
	if err := s.Admin.ExchangeDelete(outboxtest.Exchange, false, false); err != nil {
		t.Fatal(err)
	}
	proxy.Release()
	s.WaitFor("the session has ended", func() bool { return !r.Stats().Leading })
	// An event that is published between the declaration and the binding has no queue.
	proxy.Down()
	// The marker must be the first message in the queue.
	if err := s.Admin.PublishWithContext(t.Context(), "", s.Queue, false, false,
		amqp.Publishing{MessageId: "marker"}); err != nil {
		t.Fatal(err)
	}
	if got := s.Receive(s.Queue, 1); got[0].MessageId != "marker" {
		t.Fatal("some events arrived before the exchange was deleted: the test proves nothing")
	}
	s.DeclareExchange()
	s.Bind(s.Queue, "note.taken")
	proxy.Up()
	s.Await(s.Queue, ids)
	if n := len(s.HeldIDs(`true`)); n != 0 {
		t.Errorf("%d rows are held, although the broker refused none of them", n)
	}
}

// PUB-12: the broker has accepted events, but the session ends before its confirms arrive.
func TestLostConfirmsRepeatTheSameEvents(t *testing.T) {
	t.Parallel()
	s := outboxtest.New(t)
	proxy := outboxtest.NewProxy(t, s.AMQP)
	r := s.Relay(s.Out)
	r.URL = proxy.URL
	s.Run(r)
	s.Await(s.Queue, s.AppendNotes("a", 0))
	s.AwaitSettled()
	proxy.Hold(outboxtest.FromBroker)
	ids := s.AppendNotes("a", 1, 2, 3)
	s.Await(s.Queue, ids)
	proxy.Cut()
	proxy.Release()
	s.Await(s.Queue, ids)
}
