package payments

import (
	"cmp"
	"embed"
	"io/fs"
	"net/http"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/outside"
	"github.com/quadrille-go/quadrille/internal/web"
	"github.com/quadrille-go/quadrille/outbox/cdc"
	"github.com/quadrille-go/quadrille/resilience"
)

//go:embed migrations/*.sql
var migrations embed.FS

// New returns the service and its API. The configuration has the servers and the bounds; the rest
// is the service's own. The provider charges cards; if it is nil, they are declined.
func New(c quadrille.Config, peer *outside.Peer) (*quadrille.Service, http.Handler, error) {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	p := &provider{peer: peer}
	var breakers resilience.Breakers
	if peer != nil {
		breakers = append(breakers, peer.Breaker)
	}
	c.Name, c.Topology = Participant.Name, fulfilment.Topology()
	c.Handlers = append(p.handlers(), participant(peer != nil).Handler())
	c.Migrations = map[string]fs.FS{"payments": files, "resilience": resilience.Migrations()}
	c.Components = append(web.WithKeys(c.Components),
		&eventstore.Projector{Projections: Projections()}, breakers)
	c.Audit = audit
	c.Stream = cdc.For(cmp.Or(c.LeaderDatabase, c.Database), c.Log)
	service, err := quadrille.New(c)
	if err != nil {
		return nil, nil, err
	}
	p.service = service
	return service, routes(service, c.Log), nil
}
