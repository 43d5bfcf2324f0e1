package demo

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/quadrilletest"
	"github.com/quadrille-go/quadrille/topology"
)

// changed is a queue with an argument that the topology does not declare, as another release might
// have declared it.
func changed(t *testing.T, broker string) {
	t.Helper()
	queue := topology.QueueOf("payments")
	connection, err := amqp.Dial(broker)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	declare := func() error {
		ch, err := connection.Channel()
		if err != nil {
			return err
		}
		if _, err := ch.QueueDelete(queue, false, false, false); err != nil {
			return err
		}
		want := fulfilment.Topology().Broker()
		i := slices.IndexFunc(want.Queues, func(q topology.Queue) bool { return q.Name == queue })
		args := amqp.Table{"x-max-length": int64(1_000_000)}
		maps.Copy(args, want.Queues[i].Args)
		if _, err := ch.QueueDeclare(queue, true, false, false, false, args); err != nil {
			return err
		}
		for _, bind := range want.Bindings {
			if bind.Queue != queue {
				continue
			}
			if err := ch.QueueBind(queue, bind.Key, bind.Exchange, false, nil); err != nil {
				return err
			}
		}
		return nil
	}
	quadrilletest.WaitFor(t, "the queue is changed", func() (bool, string) {
		err := declare() // a broker that still removes the old one has an internal error
		return err == nil, fmt.Sprint(err)
	})
}

// A queue with arguments that the broker cannot change is recreated under traffic. What was
// published while it was not bound comes again, so that every order ends, and no service misses
// an event.
func TestQueueIsRecreatedUnderTraffic(t *testing.T) {
	t.Parallel()
	b := startServices(t, changed)
	queue := topology.QueueOf("payments")
	b.check(commandLine{"topology plan", "", cli.ExitProblems, "topology migrate"}, false)
	b.check(commandLine{"topology migrate --timeout 0s", "", cli.ExitUsage, "--timeout"}, false)
	url := b.settings["QUADRILLE_PAYMENTS_URL"]
	b.settings["QUADRILLE_PAYMENTS_URL"] = "http://127.0.0.1:1"
	b.check(commandLine{"topology migrate", "", cli.ExitUnreachable,
		"payments could not publish again"},
		false)
	b.settings["QUADRILLE_PAYMENTS_URL"] = url

	ctx, stop := context.WithCancel(t.Context())
	var traffic sync.WaitGroup
	placed := 0
	traffic.Go(func() {
		for tick := time.NewTicker(50 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			if code, out, errOut := b.run("", "order", "place", "--sample", "--customer",
				"pat"); code != 0 {
				t.Errorf("exit %d: %s%s", code, out, errOut)
			}
			placed++
		}
	})
	code, out, errOut := b.run("", "topology", "migrate", "--timeout", "10m")
	stop()
	traffic.Wait()
	if code != 0 || !strings.Contains(out, "recreated "+queue) {
		t.Fatalf("exit %d: %s%s", code, out, errOut)
	}
	t.Logf("%d orders were placed meanwhile: %s", placed, out)
	b.check(commandLine{"topology plan", "", 0, "0 to add, 0 to change, 0 to remove"}, false)
	quadrilletest.WaitFor(t, "every order ends, and every event is handled", func() (bool, string) {
		code, out, errOut := b.run("", "audit", "--grace", "1s")
		orders, list, _ := b.run("", "order", "list", "--state", "placed")
		return code == 0 && orders == 0 && !strings.Contains(list, "placed"), out + errOut + list
	})
}
