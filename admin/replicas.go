package admin

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// hedgeAfter is how long one replica is waited for before the next one is called, too.
const hedgeAfter = 500 * time.Millisecond

// probePath answers at every replica without its database.
const probePath = "/admin/breakers"

// send calls the replicas of the service. A read goes to the next one when one has not answered
// after hedgeAfter. A write goes to one alone, for two might both execute it: to the first that
// answers a read.
func (r request) send(ctx context.Context) ([]byte, error) {
	addresses, err := r.client.Replicas(r.service)
	if err == nil && len(addresses) == 0 {
		err = fmt.Errorf("%s has no address", r.service)
	}
	if err != nil {
		return nil, unreachable{err}
	}
	if len(addresses) == 1 {
		return r.to(ctx, addresses[0])
	}
	if r.method == http.MethodGet {
		answered := hedge(ctx, addresses, r.to)
		return answered.body, answered.err
	}
	probe := request{client: r.client, service: r.service, method: http.MethodGet, path: probePath}
	alive := hedge(ctx, addresses, probe.to)
	if Unreachable(alive.err) {
		return nil, alive.err
	}
	return r.to(ctx, alive.address)
}

// answered is what an address answered.
type answered struct {
	address string
	body    []byte
	err     error
}

// hedge calls one address after another, the next one when the last has failed or has not answered
// after hedgeAfter, and returns the first answer that is not a failure to reach the service.
func hedge(ctx context.Context, addresses []string,
	call func(ctx context.Context, address string) ([]byte, error)) answered {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends those that are still waited for
	answers := make(chan answered, len(addresses))
	started, ended := 0, 0
	start := func() {
		if started < len(addresses) {
			address := addresses[started]
			started++
			go func() {
				body, err := call(ctx, address)
				answers <- answered{address, body, err}
			}()
		}
	}
	start()
	tick := time.NewTicker(hedgeAfter)
	defer tick.Stop()
	for {
		select {
		case a := <-answers:
			if ended++; !Unreachable(a.err) || ended == len(addresses) {
				return a
			}
			start()
		case <-tick.C:
			start()
		}
	}
}
