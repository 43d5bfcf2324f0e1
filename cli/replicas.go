package cli

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// hedgeAfter is how long one replica is waited for before the next one is called, too.
const hedgeAfter = 500 * time.Millisecond

// probePath answers at every replica without its database.
const probePath = "/admin/breakers"

// requestReplicas calls the replicas of a service. A read goes to the next one when one has not
// answered after hedgeAfter. A write goes to one alone, for two might both execute it: to the first
// that answers a read.
func (e *Env) requestReplicas(ctx context.Context, service, method, path string,
	header map[string]string, sent []byte) ([]byte, error) {
	addresses, err := e.ServiceURLs(service)
	if err != nil {
		return nil, err
	}
	if len(addresses) == 1 {
		return e.request(ctx, addresses[0], service, method, path, header, sent)
	}
	if method == http.MethodGet {
		answered := hedge(ctx, addresses, func(ctx context.Context, address string) ([]byte, error) {
			return e.request(ctx, address, service, method, path, header, sent)
		})
		return answered.body, answered.err
	}
	alive := hedge(ctx, addresses, func(ctx context.Context, address string) ([]byte, error) {
		return e.request(ctx, address, service, http.MethodGet, probePath, nil, nil)
	})
	if IsUnreachable(alive.err) {
		return nil, alive.err
	}
	return e.request(ctx, alive.address, service, method, path, header, sent)
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
			if ended++; !IsUnreachable(a.err) || ended == len(addresses) {
				return a
			}
			start()
		case <-tick.C:
			start()
		}
	}
}

// IsUnreachable reports whether err means that a service, or the setting with its address, is not
// there.
func IsUnreachable(err error) bool {
	var coded Error
	return errors.As(err, &coded) && coded.Code == ExitUnreachable
}
