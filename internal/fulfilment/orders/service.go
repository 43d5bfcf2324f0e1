package orders

import (
	"cmp"
	"embed"
	"io/fs"
	"net/http"
	"slices"
	"time"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/web"
	"github.com/quadrille-go/quadrille/outbox/cdc"
)

//go:embed migrations/*.sql
var migrations embed.FS

// New returns the service and its API. The configuration has the servers and the bounds; the rest
// is the service's own. An order must be confirmed within the given time, unless it says otherwise.
func New(c quadrille.Config, within time.Duration) (*quadrille.Service, http.Handler, error) {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	c.Name, c.Topology = Participant.Name, fulfilment.Topology()
	metrics := newProgress()
	own := participant(metrics.ended)
	c.Handlers = []consumer.Handler{own.Handler()}
	c.Migrations = map[string]fs.FS{"orders": files}
	c.Components = slices.Concat(web.WithKeys(c.Components), []quadrille.Component{metrics})
	c.Audit = audit
	c.Stream = cdc.For(cmp.Or(c.LeaderDatabase, c.Database), c.Log)
	service, err := quadrille.New(c)
	if err != nil {
		return nil, nil, err
	}
	return service, routes(service, own, within, c.Log), nil
}
