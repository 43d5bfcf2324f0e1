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

// awaitPort waits until the port of a process is free: a killed process holds its port until its
// last thread has ended. It never chooses another port, because clients know this one.
func (s *state) awaitPort(ctx context.Context, name string, atMost time.Duration) error {
	address := s.address(name)
	deadline := time.Now().Add(atMost)
	for !isFree(s.Ports[name]) {
		if time.Now().After(deadline) {
			return fmt.Errorf("the address %s of %s is still taken after %s by a program outside this "+
				"stack: end that program, or run quadrille down, which gives up the address", address, name,
				atMost)
		}
		if err := pause(ctx, pollEvery); err != nil {
			return fmt.Errorf("wait for the address %s of %s: %w", address, name, err)
		}
	}
	return nil
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
