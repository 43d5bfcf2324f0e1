package localrun

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
)

// Addresses returns n different addresses on this machine for programs that listen later. Their
// ports are free and outside the range from which the kernel assigns ports.
func Addresses(n int) ([]string, error) {
	ports, addresses := make([]*int, n), make([]string, n)
	for i := range ports {
		ports[i] = new(int)
	}
	if err := pickPorts(ports); err != nil {
		return nil, err
	}
	for i, port := range ports {
		addresses[i] = local(*port)
	}
	return addresses, nil
}

// portRange returns the range below the ports for outgoing connections. A port among those could be
// taken while its server restarts.
func portRange() (low, high int) {
	low, high = 10000, 32768
	if data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(data), &high)
	}
	if high < low+1000 {
		return 20000, 30000
	}
	return low, high
}

// pickPorts finds free ports, all of them different.
func pickPorts(ports []*int) error {
	low, high := portRange()
	for _, port := range ports {
		found := false
		for range 1000 {
			candidate := low + rand.IntN(high-low)
			listener, err := listen(candidate)
			if err != nil {
				continue
			}
			defer listener.Close() //nolint:errcheck // open until the end so that no port is picked twice
			*port, found = candidate, true
			break
		}
		if !found {
			return errors.New("found no free port on 127.0.0.1")
		}
	}
	return nil
}

func listen(port int) (net.Listener, error) { return net.Listen("tcp4", local(port)) }

func isFree(port int) bool {
	l, err := listen(port)
	if err == nil {
		_ = l.Close()
	}
	return err == nil
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
