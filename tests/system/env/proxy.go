package env

import (
	"errors"
	"io"
	"net"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// Proxy is the network between a service and one of its servers. While it is down, it has closed
// all connections and refuses new ones.
type Proxy struct {
	t           testing.TB
	address     string // on which it listens
	guard       int    // a socket that reserves the address while the proxy is down
	server      string
	mu          sync.Mutex
	listener    net.Listener // nil while the proxy is down
	connections map[net.Conn]bool
	running     sync.WaitGroup
}

// NewProxy starts a proxy for a server and returns the URL that leads through it.
func NewProxy(t testing.TB, server string) (*Proxy, string) {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{t: t, server: u.Host, connections: map[net.Conn]bool{}}
	if p.guard, p.address, err = reserve(); err != nil {
		t.Fatal(err)
	}
	p.Up()
	u.Host = p.address
	t.Cleanup(func() { p.Down(); p.running.Wait(); _ = syscall.Close(p.guard) })
	return p, u.String()
}

// reserve binds a socket to a free port without listening. The kernel then does not assign the port
// to programs that request any free port, and refuses connections to it, but Up can still listen on
// it.
func reserve() (guard int, address string, err error) {
	guard, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, "", err
	}
	if err = syscall.SetsockoptInt(guard, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err == nil {
		err = syscall.Bind(guard, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err != nil {
		return 0, "", errors.Join(err, syscall.Close(guard))
	}
	bound, err := syscall.Getsockname(guard)
	if err != nil {
		return 0, "", errors.Join(err, syscall.Close(guard))
	}
	return guard, net.JoinHostPort("127.0.0.1", strconv.Itoa(bound.(*syscall.SockaddrInet4).Port)), nil
}

// Up accepts connections, always at the same address.
func (p *Proxy) Up() {
	listener, err := net.Listen("tcp", p.address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener = listener
	p.running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.forward(client)
		}
	})
}

// Down closes all connections and refuses new ones.
func (p *Proxy) Down() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	for c := range p.connections {
		_ = c.Close()
	}
}

func (p *Proxy) forward(client net.Conn) {
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener == nil {
		_ = client.Close()
		_ = server.Close()
		return
	}
	for from, to := range map[net.Conn]net.Conn{client: server, server: client} {
		p.connections[from] = true
		p.running.Go(func() {
			_, _ = io.Copy(to, from)
			_ = to.Close()
			_ = from.Close()
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.connections, from)
		})
	}
}
