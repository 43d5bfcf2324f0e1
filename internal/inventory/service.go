package inventory

import (
	"embed"
	"io/fs"
	"net/http"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/idempotency"
	"github.com/quadrille-go/quadrille/outbox/cdc"
	"github.com/quadrille-go/quadrille/topology"
)

//go:embed migrations/*.sql
var migrations embed.FS

// New returns the service and its API.
func New(database, amqp string, log zerolog.Logger) (*quadrille.Service, http.Handler) {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	service := &quadrille.Service{
		Name: Participant.Name, Handlers: []consumer.Handler{Participant.Handler()},
		Database: database, AMQP: amqp, Topology: topology.Fulfilment(),
		Migrations: map[string]fs.FS{"inventory": files, "idempotency": idempotency.Migrations()},
		Log:        log, Stream: cdc.For(database, log),
	}
	return service, routes(service, log)
}
