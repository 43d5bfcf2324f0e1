package shipping

import (
	"embed"
	"io/fs"
	"net/http"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/outside"
	"github.com/quadrille-go/quadrille/outbox/cdc"
	"github.com/quadrille-go/quadrille/topology"
)

//go:embed migrations/*.sql
var migrations embed.FS

// New returns the service and its API. The carrier serves the given countries; when it is nil,
// there is none to ask, and parcels go at once.
func New(database, amqp string, peer *outside.Peer, countries []string,
	log zerolog.Logger) (*quadrille.Service, http.Handler) {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	participant := Participant(peer != nil, countries...)
	service := &quadrille.Service{
		Name: participant.Name, Handlers: append(desk{peer}.handlers(), participant.Handler()),
		Database: database, AMQP: amqp, Topology: topology.Fulfilment(),
		Migrations: map[string]fs.FS{"shipping": files}, Log: log, Stream: cdc.For(database, log),
	}
	if peer != nil {
		service.Breakers = append(service.Breakers, peer.Breaker)
	}
	return service, routes(service, participant, log)
}
