// Package quadrilletest is for the tests of services that are made with Quadrille.
//
// # A reaction
//
// A reaction of a consumer.Participant is a pure function, so its test needs no server. React gives
// it rows and events, and compares the rows and the effects that result:
//
//	quadrilletest.React(t, hotels(), quadrilletest.Case{
//		Given:   []any{Hotel{Name: "ritz", Free: 1}},
//		When:    []events.Payload{TripRequested{Trip: "t-1", Hotel: "ritz"}},
//		Rows:    []any{Hotel{Name: "ritz", Free: 0}, Room{Trip: "t-1", Hotel: "ritz"}},
//		Effects: consumer.Publish(RoomReserved{Trip: "t-1"}),
//	})
//
// Check explores every interleaving of a choreography, as the command check does, and fails with
// the shortest way to a wrong state.
//
// # Services on real servers
//
// Shared returns a RabbitMQ and a PostgreSQL. Each test gets a virtual host and databases of its
// own, which are removed in the end, so tests may run in parallel. Run runs a service until the
// test ends, and a Recorder waits for what is published:
//
//	servers := quadrilletest.Shared(t)
//	broker := servers.VirtualHost(t)
//	members, err := quadrille.New(quadrille.Config{Name: "members", AMQP: broker,
//		Database: servers.Database(t), …})
//	…
//	published := quadrilletest.Record(t, broker, "members")
//	quadrilletest.Run(t, members)
//	… // do something
//	published.Await("user.joined", "42")
//
// The servers are, in this order:
//
//   - those whose addresses are in the environment variables QUADRILLE_AMQP_URL and
//     QUADRILLE_MANAGEMENT_URL, of an administrator, and QUADRILLE_POSTGRES_URL, of a superuser;
//   - RabbitMQ and PostgreSQL as programs that are installed, started for all tests of the module
//     together, which end ten minutes after the last test;
//   - containers, if docker or podman answers.
//
// If there are none, the test fails and says what to install or to set. It is never skipped, since
// a skipped test proves nothing.
//
// # Faults
//
// Private returns servers of one test alone, which it may kill and restart. A Proxy is the network
// between a service and a server: it cuts connections, holds data back, is down or slow:
//
//	network := quadrilletest.NewProxy(t, broker)
//	… // quadrille.Config{AMQP: network.URL, …}
//	network.Down()
//	… // do something
//	network.Up()
//	quadrilletest.WaitFor(t, "the event is handled", func() (bool, string) { … })
//
// A test never sleeps: WaitFor polls until a condition is true, and fails after Timeout with what
// it has seen last.
package quadrilletest
