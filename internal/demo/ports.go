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

// address is where a replica serves: the same again after a restart.
func (s *state) address(name string) string {
	for s.Ports[name] == 0 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		// of one that is not started yet
		ours := slices.Contains(slices.Collect(maps.Values(s.Ports)), port)
		if !ours && free(port) {
			s.Ports[name] = port
		}
	}
	return local(s.Ports[name])
}

// awaitPort waits until the port that a process is to have is free: one that was killed holds its
// port until its last thread has ended. Another port is never chosen, since clients know this one.
func (s *state) awaitPort(ctx context.Context, name string, atMost time.Duration) error {
	address := s.address(name)
	deadline := time.Now().Add(atMost)
	for !free(s.Ports[name]) {
		if time.Now().After(deadline) {
			return fmt.Errorf("the address %s of %s is still taken after %s by a program that is not of "+
				"this stack: end that program,"+
				" or run: quadrille down, which gives up the address", address, name, atMost)
		}
		if err := pause(ctx, pollEvery); err != nil {
			return fmt.Errorf("wait for the address %s of %s: %w", address, name, err)
		}
	}
	return nil
}

// release gives up the ports that other programs took. It is for the end of a stack, after which
// nobody may rely on its addresses.
func (s *state) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	for name, port := range s.Ports {
		for !s.alive(name) && !free(port) {
			if pause(ctx, pollEvery) != nil {
				delete(s.Ports, name)
				break
			}
		}
	}
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func free(port int) bool {
	l, err := net.Listen("tcp", local(port))
	if err == nil {
		_ = l.Close()
	}
	return err == nil
}
