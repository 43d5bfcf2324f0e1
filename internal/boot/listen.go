package boot

import (
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/quadrille-go/quadrille/internal/web"
)

// listenFD names the descriptor of a listening socket that the parent process has opened. Nobody
// can take the address between the moment at which the parent finds it free and the service's
// start, and a connection that comes meanwhile waits instead of being refused.
const listenFD = "QUADRILLE_LISTEN_FD"

// firstFD is the least descriptor that a parent hands over; those before are the standard streams.
const firstFD = 3

// listen returns the listener that was handed over, or opens one. The address must be allowed.
func (c *Config) listen(tokens *web.Tokens, address string) (net.Listener, error) {
	if err := tokens.Allow(address); err != nil {
		return nil, err
	}
	l, err := c.inherited(address)
	if l == nil && err == nil {
		return tokens.Listen(address)
	}
	return l, err
}

// inherited returns the listener that the parent has opened at an address, nil when there is none.
func (c *Config) inherited(address string) (net.Listener, error) {
	text := c.String(listenFD)
	if text == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < firstFD {
		return nil, fmt.Errorf("%s: %.20q is no descriptor: want a number from %d on", listenFD, text,
			firstFD)
	}
	file := os.NewFile(uintptr(fd), "listener")
	// the listener has a descriptor of its own, which no child inherits
	defer func() { _ = file.Close() }()
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("%s: descriptor %d is no listening socket: %w", listenFD, fd, err)
	}
	if have := l.Addr().String(); have != address {
		_ = l.Close()
		return nil, fmt.Errorf("%s: descriptor %d listens on %s, want %s", listenFD, fd, have, address)
	}
	return l, nil
}
