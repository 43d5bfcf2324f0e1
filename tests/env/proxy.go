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

// Proxy is the network between a service and one of its servers: it can be down, so that
// connections end and new ones are refused.
type Proxy struct {
	t        testing.TB
	address  string // at which it listens
	guard    int    // a socket that keeps the address while nobody listens there
	server   string
	mu       sync.Mutex
	listener net.Listener // nil while it is down
	open     map[net.Conn]bool
	running  sync.WaitGroup
}

// NewProxy puts a line before a server, and returns the URL that leads through it.
func NewProxy(t testing.TB, server string) (*Proxy, string) {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	l := &Proxy{t: t, server: u.Host, open: map[net.Conn]bool{}}
	if l.guard, l.address, err = reserve(); err != nil {
		t.Fatal(err)
	}
	l.Up()
	u.Host = l.address
	t.Cleanup(func() { l.Down(); l.running.Wait(); _ = syscall.Close(l.guard) })
	return l, u.String()
}

// reserve binds a socket to a free port without listening: the kernel gives the port to nobody who
// asks for any, refuses connections to it, and lets only who asks for it listen.
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

// Up lets connections through, again at the same address.
func (l *Proxy) Up() {
	listener, err := net.Listen("tcp", l.address)
	if err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listener = listener
	l.running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			l.carry(client)
		}
	})
}

// Down ends all connections and refuses new ones.
func (l *Proxy) Down() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener != nil {
		_ = l.listener.Close()
		l.listener = nil
	}
	for c := range l.open {
		_ = c.Close()
	}
}

func (l *Proxy) carry(client net.Conn) {
	server, err := net.Dial("tcp", l.server)
	if err != nil {
		_ = client.Close()
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener == nil {
		_ = client.Close()
		_ = server.Close()
		return
	}
	for from, to := range map[net.Conn]net.Conn{client: server, server: client} {
		l.open[from] = true
		l.running.Go(func() {
			_, _ = io.Copy(to, from)
			_ = to.Close()
			_ = from.Close()
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.open, from)
		})
	}
}
