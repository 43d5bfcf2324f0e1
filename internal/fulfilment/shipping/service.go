package shipping

import (
	"cmp"
	"embed"
	"io/fs"
	"net/http"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/outside"
	"github.com/quadrille-go/quadrille/outbox/cdc"
	"github.com/quadrille-go/quadrille/resilience"
)

//go:embed migrations/*.sql
var migrations embed.FS

// New returns the service and its API. The configuration has the servers and the bounds; the rest
// is the service's own. The carrier serves the given countries; if the peer is nil, no carrier is
// called, and parcels are scheduled at once.
func New(c quadrille.Config, peer *outside.Peer, countries []string) (*quadrille.Service,
	http.Handler, error) {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	participant := Participant(peer != nil, countries...)
	if peer != nil {
		c.Components = append(c.Components, resilience.Breakers{peer.Breaker})
	}
	c.Name, c.Topology = participant.Name, fulfilment.Topology()
	c.Handlers = append(desk{peer}.handlers(), participant.Handler())
	c.Migrations = map[string]fs.FS{"shipping": files}
	c.Stream = cdc.For(cmp.Or(c.LeaderDatabase, c.Database), c.Log)
	service, err := quadrille.New(c)
	if err != nil {
		return nil, nil, err
	}
	return service, routes(service, participant, c.Log), nil
}
