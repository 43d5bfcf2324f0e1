package payments

import (
	"embed"
	"io/fs"
	"net/http"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/idempotency"
	"github.com/quadrille-go/quadrille/internal/outside"
	"github.com/quadrille-go/quadrille/outbox/cdc"
	"github.com/quadrille-go/quadrille/resilience"
	"github.com/quadrille-go/quadrille/topology"
)

//go:embed migrations/*.sql
var migrations embed.FS

// New returns the service and its API. Cards are charged by the provider, and declined when it is
// nil.
func New(database, amqp string, peer *outside.Peer, log zerolog.Logger) (*quadrille.Service,
	http.Handler) {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	service := &quadrille.Service{
		Name:     Participant.Name,
		Database: database, AMQP: amqp, Topology: topology.Fulfilment(),
		Migrations: map[string]fs.FS{"payments": files, "idempotency": idempotency.Migrations(),
			"resilience": resilience.Migrations()}, Log: log, Stream: cdc.For(database, log),
		Projections: Projections(),
	}
	service.Handlers = append(provider{peer, service}.handlers(), participant(peer != nil).Handler())
	if peer != nil {
		service.Breakers = append(service.Breakers, peer.Breaker)
	}
	return service, routes(service, log)
}
