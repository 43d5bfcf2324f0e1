package demo

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"time"
)

// address returns the address of a process. It stays the same after a restart.
func (s *state) address(name string) string {
	for s.Ports[name] == 0 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		// The port may be reserved for a process that has not been started yet.
		ours := slices.Contains(slices.Collect(maps.Values(s.Ports)), port)
		if !ours && isFree(port) {
			s.Ports[name] = port
		}
	}
	return local(s.Ports[name])
}

// awaitPort opens the port of a process once it is free: a killed process holds its port until its
// last thread has ended. It never chooses another port, because clients know this one. The process
// inherits the open socket, so that no other program can take the port before it starts.
func (s *state) awaitPort(ctx context.Context, name string, atMost time.Duration) (*net.TCPListener,
	error) {
	address := s.address(name)
	deadline := time.Now().Add(atMost)
	for {
		if listener, err := net.Listen("tcp", address); err == nil {
			return listener.(*net.TCPListener), nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("the address %s of %s is still taken after %s by a program outside "+
				"this stack: end that program, or run quadrille down, which gives up the address", address,
				name, atMost)
		}
		if err := pause(ctx, pollEvery); err != nil {
			return nil, fmt.Errorf("wait for the address %s of %s: %w", address, name, err)
		}
	}
}

// release gives up the ports that other programs took. It runs when the stack ends, because clients
// may rely on the addresses until then.
func (s *state) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	for name, port := range s.Ports {
		for !s.alive(name) && !isFree(port) {
			if pause(ctx, pollEvery) != nil {
				delete(s.Ports, name)
				break
			}
		}
	}
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func isFree(port int) bool {
	l, err := net.Listen("tcp", local(port))
	if err == nil {
		_ = l.Close()
	}
	return err == nil
}
