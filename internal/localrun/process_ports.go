package localrun

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"time"
)

// releaseTimeout is how long the end of a stack waits for its ports to become free.
const releaseTimeout = 2 * time.Second

// Address returns the address of a process. It stays the same after a restart.
func (p *Processes) Address(name string) string {
	low, high := portRange()
	for p.saved.Ports[name] == 0 {
		port := low + rand.IntN(high-low)
		// The port may be reserved for a process that has not been started yet.
		ours := slices.Contains(slices.Collect(maps.Values(p.saved.Ports)), port)
		if !ours && isFree(port) {
			p.saved.Ports[name] = port
		}
	}
	return local(p.saved.Ports[name])
}

// awaitPort opens the port of a process once it is free: a killed process holds its port until its
// last thread has ended. It never chooses another port, because clients know this one. The process
// inherits the open socket, so that no other program can take the port before it starts.
func (p *Processes) awaitPort(ctx context.Context, name string, atMost time.Duration) (
	listener *net.TCPListener, err error) {
	address := p.Address(name)
	err = pollFor(ctx, atMost, func() (bool, error) {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return false, nil
		}
		listener = l.(*net.TCPListener)
		return true, nil
	})
	switch {
	case errors.Is(err, errNotWithin):
		return nil, fmt.Errorf("the address %s of %s is still taken after %s by a program outside "+
			"this stack: end that program, or run the command down, which gives up the address", address,
			name, atMost)
	case err != nil:
		return nil, fmt.Errorf("wait for the address %s of %s: %w", address, name, err)
	}
	return listener, nil
}

// Release gives up the ports that other programs took. It is for the end of a stack, because
// clients may rely on the addresses until then.
func (p *Processes) Release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	for name, port := range p.saved.Ports {
		free := func() (bool, error) { return p.Alive(name) || isFree(port), nil }
		if Poll(ctx, pollEvery, free) != nil {
			delete(p.saved.Ports, name)
		}
	}
}
