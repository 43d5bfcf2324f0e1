//go:build faults

package metrics_test

import (
	"context"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// faults returns a fault for each alert that a fault of servers, handlers or peers can raise.
func faults() []fault {
	return append([]fault{
		{alert: "QuadrilleDatabaseAway", cause: func(s *shop) func() {
			s.postgres.Down()
			return s.postgres.Up
		}},
		{alert: "QuadrilleBrokerAway", cause: func(s *shop) func() {
			s.rabbit.Down()
			return s.rabbit.Up
		}},
		{alert: "QuadrilleBrokerBlocked", private: true, cause: func(s *shop) func() {
			s.ctl("set_vm_memory_high_watermark", "0.000001")
			s.publish(opened{"1"}) // the broker tells a connection when it publishes
			return func() { s.ctl("set_vm_memory_high_watermark", "0.4") }
		}},
		{alert: "QuadrilleNotConsuming", cause: func(s *shop) func() {
			s.amqp(func(ch *amqp.Channel) error {
				_, err := ch.QueueDelete("shop.in", false, false, false)
				return err
			})
			return s.apply
		}},
		{alert: "QuadrilleNoLeader", cause: noLeader},
		{alert: "QuadrilleOutboxLag", cause: func(s *shop) func() {
			s.rabbit.Hold(quadrilletest.FromServer) // what the broker answers, such as confirms
			s.publish(opened{"1"})
			return s.rabbit.Release
		}},
		{alert: "QuadrilleEventHeld", cause: func(s *shop) func() {
			s.publish(orphan{"1"})
			return func() {
				s.amqp(func(ch *amqp.Channel) error {
					if _, err := ch.QueueDeclare("orphans", true, false, false, false, nil); err != nil {
						return err
					}
					return ch.QueueBind("orphans", "shop.orphaned", "shop.events", false, nil)
				})
			}
		}},
		{alert: "QuadrilleOverdue", cause: func(s *shop) func() {
			s.exec(`INSERT INTO pending (consumer, owner, key, kind, type, exchange, routing_key,
				attributes, body, attempts, due, reason)
				VALUES ('shop', 'members', 'k', 'retry', 'of.another.release', '', '', '{}', '', 1, now(),
					'r')`)
			return func() { s.exec(`DELETE FROM pending`) }
		}},
	}, faultsOfCode()...)
}

// noLeader takes the lock of the leader away, and keeps it.
func noLeader(s *shop) func() {
	rival, err := s.db.Connx(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	locked := make(chan error, 1)
	go func() {
		_, err := rival.ExecContext(s.Context(), `SELECT pg_advisory_lock(hashtextextended('outbox', 0))`)
		locked <- err
	}()
	for taken := false; !taken; {
		s.exec(`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
			AND EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)`)
		select {
		case err := <-locked:
			if err != nil {
				s.Fatal(err)
			}
			taken = true
		case <-time.After(100 * time.Millisecond):
		}
	}
	return func() {
		if _, err := rival.ExecContext(s.Context(), `SELECT pg_advisory_unlock_all()`); err != nil {
			s.Error(err)
		}
		_ = rival.Close()
	}
}

// faultsOfCode are those of handlers, of peers and of the API.
func faultsOfCode() []fault {
	return []fault{
		{alert: "QuadrilleEventParked", cause: func(s *shop) func() {
			s.does(func(context.Context) error { return consumer.Permanent(errNo) })
			s.join(1)
			return func() { s.exec(`DELETE FROM pending`) }
		}},
		{alert: "QuadrilleHandlerHangs", timeout: time.Second, cause: func(s *shop) func() {
			release := make(chan struct{})
			s.does(func(context.Context) error { <-release; return nil })
			s.join(1)
			return func() { close(release) }
		}},
		{alert: "QuadrilleEventsFail", cause: func(s *shop) func() {
			s.does(func(context.Context) error { return errNo })
			s.join(20)
			return func() {
				s.does(func(context.Context) error { return nil })
				s.join(500)
			}
		}},
		{alert: "QuadrilleConsumerLag", cause: func(s *shop) func() {
			slow := make(chan struct{})
			open := sync.OnceFunc(func() { close(slow) })
			timer := time.AfterFunc(21*time.Second, open) // below the time-out of handlers
			s.Cleanup(func() { timer.Stop(); open() })
			s.does(func(context.Context) error { <-slow; return nil })
			s.join(1)
			return func() { s.join(100) }
		}},
		{alert: "QuadrilleBreakerOpen", cause: func(s *shop) func() {
			call := s.breaker.Guard()
			for range 5 {
				_ = call(s.Context(), func(context.Context) error { return errNo })
			}
			return func() {
				if err := call(s.Context(), func(context.Context) error { return nil }); err != nil {
					s.Error(err)
				}
			}
		}},
		{alert: "QuadrilleHttpErrors", cause: func(s *shop) func() {
			s.requests()
			s.failing.Store(true)
			return func() { s.failing.Store(false) }
		}},
	}
}
