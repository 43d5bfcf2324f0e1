package system_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/demo"
	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// wipedOrders is how many orders are placed while the broker loses its data.
const wipedOrders = 200

// The broker is disposable. It is killed under load and loses all its data: exchanges, queues,
// users, and the events for a service that was down. After the topology is applied and each service
// has replayed its history, nothing is lost and nothing has happened twice.
func TestBrokerIsDisposable(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := &demo.Stack{Root: root(t), Name: "wipe", Replicas: 1, Log: t.Logf}
	startEmpty(t, s)
	w := newChaosRun(t, s, seed)
	w.stockUp(t.Context())
	ctx, cancel := context.WithTimeoutCause(t.Context(), backTimeout, errors.New("the load is stuck"))
	defer cancel()
	s.Kill("shipping-1")
	placed := w.load(ctx, wipedOrders)
	w.awaitHandled(ctx, wipedOrders/4)
	if err := s.Backends().KillRabbitMQ(); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(localrun.Dir(s.Root, s.Name), "rabbitmq", "data")
	if err := os.Rename(data, filepath.Join(t.TempDir(), "data")); err != nil {
		t.Fatal(err) // it must be there
	}
	again := *s // clients use s meanwhile
	if err := w.retry(func() error { return again.Up(ctx) }); err != nil {
		t.Fatal(err)
	}
	<-placed
	databases := w.openDatabases()
	defer closeAll(databases)
	lost, _ := w.compare(ctx, databases)
	t.Logf("%d events are not handled after the wipe", len(lost))
	if len(lost) < wipedOrders/4 {
		t.Errorf("only %d events were lost: %v", len(lost), lost)
	}
	client := &admin.Client{Replicas: func(service string) ([]string, error) {
		return []string{s.URL(service, 1)}, nil
	}}
	for _, service := range fulfilment.Topology().Services {
		r, err := client.Replay(ctx, service.Name, admin.ReplayRequest{AgoSeconds: time.Hour.Seconds()})
		if err != nil || r.Refused+r.Held > 0 {
			t.Errorf("%s: %+v (%v)", service.Name, r, err)
		}
	}
	w.awaitRest(t.Context(), settleTimeout)
	w.check(t.Context())
}

// awaitHandled waits until payments has handled so many new orders. The broker has them in the
// queues of the other subscribers by then.
func (w *chaosRun) awaitHandled(ctx context.Context, orders int) {
	databases := w.openDatabases()
	defer closeAll(databases)
	quadrilletest.WaitFor(w.t, "orders to be handled", func() (bool, string) {
		var n int
		err := databases["payments"].GetContext(ctx, &n, `SELECT count(*) FROM inbox
			WHERE type = 'order.placed'`)
		return n >= orders, fmt.Sprintf("%d (%v)", n, err)
	})
}
