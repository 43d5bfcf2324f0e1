// Package quadrille runs event-driven services on RabbitMQ and PostgreSQL: a Service publishes
// domain events through a transactional outbox and handles those of other services, with
// at-least-once delivery and exactly-once effects. It puts together what the packages events,
// topology, outbox and consumer do.
//
// # A service
//
// A service has a name, its own database and a broker. Config has these and everything else, with
// a default for each bound. New reports all faults of the configuration at once and does not
// connect; Run migrates the database, publishes and consumes until its context is done, and waits
// for servers that are away:
//
//	members, err := quadrille.New(quadrille.Config{
//		Name:      "members",
//		Publishes: []events.Payload{UserJoined{}},
//		Handlers:  []consumer.Handler{consumer.Handle(welcome)},
//		Database:  "postgres://me:secret@127.0.0.1:5432/members?sslmode=disable",
//		AMQP:      "amqp://me:secret@127.0.0.1:5672/",
//	})
//	…
//	err = members.Run(ctx)
//
// A payload is a struct with the methods EventType and Subject; see package events. A service that
// is not named by its Topology declares its own exchange, queue and bindings; Publishes lists its
// events. Services that belong together share a Topology that names them all and lists their
// events. An operator applies it, with ApplyTopology or the command topology apply of package cli,
// and the services wait until that is done.
//
// # Publishing
//
// Tx runs a function in a transaction, and Publish stores events in it. They are published after
// the commit, or not at all if there is none. The function may run again, so it should have no
// effect outside of the transaction:
//
//	err = members.Tx(ctx, func(ctx context.Context, tx *sqlx.Tx) error {
//		if _, err := tx.ExecContext(ctx, `INSERT INTO users …`); err != nil {
//			return err
//		}
//		return members.Publish(ctx, tx, UserJoined{ID: "42"})
//	})
//
// Always pass on the context that the function gets. In a handler it carries the event that is
// handled, which becomes the cause of what is published.
//
// # Handlers
//
// A handler made by consumer.Handle runs its own SQL in the transaction in which the inbox stores
// the id of the event, so that its changes are made once for each event:
//
//	func welcome(ctx context.Context, tx *sqlx.Tx, e events.Of[UserJoined]) error {
//		_, err := tx.ExecContext(ctx, `INSERT INTO welcomed …`, e.Data.ID)
//		return err
//	}
//
// If it returns an error, the transaction is rolled back, and the event is handled again later.
// After the last attempt it is parked, until a person redrives or discards it; other events go on.
// Handler.With changes the retries, the time-out and the concurrency of one handler.
//
// # Reactions and commands
//
// If a service has several events that change the same rows, a consumer.Participant is simpler and
// safer than SQL. Its reactions are pure functions: each changes the rows of a state and returns
// consumer.Effects, which are events to publish, deadlines to schedule and calls to request. Locks
// names the rows; the kit locks, loads and saves them. The same functions run on consumer.Memory in
// unit tests, and in package check, which explores every interleaving:
//
//	func reserve(s *State, e events.Of[TripRequested]) (consumer.Effects, error) {
//		hotel, _ := s.Hotels.Get(e.Data.Hotel)
//		if hotel.Free == 0 {
//			return consumer.Publish(RoomRejected{Trip: e.Data.Trip}), nil
//		}
//		hotel.Free--
//		s.Hotels.Set(hotel.Name, hotel)
//		return consumer.Publish(RoomReserved{Trip: e.Data.Trip}), nil
//	}
//
// A refusal of the business is an event, such as RoomRejected. Commands are reactions, too: Execute
// runs them in one transaction and returns the new state. A reaction refuses a command with
// consumer.Refuse; the error of Execute is then a *consumer.Refusal, and nothing has happened:
//
//	state, err := quadrille.Execute(ctx, trips, participant, Book{Trip: id})
//
// A deadline, consumer.Schedule, is delivered to the service's own reactions later. It survives
// restarts.
//
// # Calls to the outside
//
// A reaction requests a call with consumer.Request, and a handler made by consumer.Call makes it:
// after the commit, with no transaction open. A call that fails is made again later, with the same
// e.ID each time, which is the idempotency key for the other side; it is parked after its last
// attempt, as an event is. The answer is delivered to the service's own reaction to its type:
//
//	consumer.Call(func(ctx context.Context, e events.Of[Pay]) (events.Payload, error) {
//		if err := provider.Take(ctx, e.ID, e.Data.Amount); err != nil {
//			return nil, err
//		}
//		return Paid{Trip: e.Data.Trip}, nil
//	})
//
// # What is promised
//
// Delivery is at least once, and the effects on the service's database happen exactly once:
//
//   - An event is published if, and only if, the transaction that stored it has committed.
//   - A handler's transaction, or a reaction, takes effect once for each event, also after a
//     crash of any process or server.
//   - Deadlines and requests of calls are stored in the transaction that makes them, and none is
//     lost.
//   - What cannot be handled is parked with its bytes and its reason, and delays nothing else.
//
// # What is not promised
//
//   - Order. Events about one subject are first published in the order of their transactions, but
//     retries and replays change the order of arrival. Reactions must work in any order; package
//     check finds those that do not.
//   - That a consumer exists. An event of a type without a subscriber in the topology is published
//     to nobody, unless Config.Mandatory holds it until a queue is bound.
//   - Effects outside of the database. A handler that sends a mail may send it twice. An outside
//     call has one effect only if the other side honours the idempotency key.
//   - Isolation between services. Others see the first steps before the last one is done, and a
//     process that fails half-way is undone by compensations.
//
// A Service opens no port and reads no environment. The programs in the folder examples are
// complete, and docs/getting-started.md explains one of them.
package quadrille
