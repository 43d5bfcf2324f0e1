package quadrilletest

import (
	"errors"
	"net"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Direction is a direction in which data passes a Proxy.
type Direction int

const (
	ToServer   Direction = iota // what clients send
	FromServer                  // what the server answers
)

// Proxy is the network between clients and one server, with faults that a test causes. Its methods
// may be called from any goroutine, except Up, which is for that of the test.
type Proxy struct {
	URL string // that of the server, by way of the proxy

	t       testing.TB
	address string // on which it listens
	server  string
	guard   int // a socket that reserves the address while the proxy is down
	done    chan struct{}
	running sync.WaitGroup

	mu          sync.Mutex
	listener    net.Listener // nil while the proxy is down
	connections map[net.Conn]bool
	accepted    int
	gates       [2]chan struct{} // data passes while the channel is nil
	waiting     [2]int           // connections whose data is held back
	delay       time.Duration
	filter      func(connection int, d Direction, data []byte) bool
}

// NewProxy starts a proxy before the server of a URL, until the test ends. It lets everything
// through.
func NewProxy(t testing.TB, serverURL string) *Proxy {
	t.Helper()
	u, err := url.Parse(serverURL)
	if err != nil {
		t.Fatal("start a proxy: the URL of the server cannot be parsed")
	}
	p := &Proxy{t: t, server: u.Host, done: make(chan struct{}), connections: map[net.Conn]bool{}}
	if p.guard, p.address, err = reserveAddress(); err != nil {
		t.Fatalf("start a proxy: %v", err)
	}
	p.Up()
	u.Host = p.address
	p.URL = u.String()
	t.Cleanup(func() {
		close(p.done)
		p.Down() // so that what is held back reaches nobody
		p.Release()
		p.running.Wait()
		_ = syscall.Close(p.guard)
	})
	return p
}

// reserveAddress binds a socket to a free port without listening. The kernel then does not assign
// the port to programs that request any free port, and refuses connections to it, but Up can still
// listen on it.
func reserveAddress() (guard int, address string, err error) {
	syscall.ForkLock.RLock() // so that no new process inherits the socket
	guard, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(guard)
	}
	syscall.ForkLock.RUnlock()
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
	port := bound.(*syscall.SockaddrInet4).Port
	return guard, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), nil
}

// Cut closes all connections. New ones are accepted.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.connections {
		_ = c.Close()
	}
}

// Down closes all connections and refuses new ones until Up. It changes nothing on a proxy that is
// down already.
func (p *Proxy) Down() {
	p.mu.Lock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	p.mu.Unlock()
	p.Cut()
}

// Up accepts connections again, at the same address. It changes nothing on a proxy that is up.
func (p *Proxy) Up() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		return
	}
	listener, err := net.Listen("tcp", p.address)
	if err != nil {
		p.t.Fatalf("the proxy cannot listen again: %v", err)
	}
	p.listener = listener
	p.running.Go(func() { p.accept(listener) })
}

// Hold holds back all data in one direction, until Release.
func (p *Proxy) Hold(d Direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gates[d] == nil {
		p.gates[d] = make(chan struct{})
	}
}

// Waiting reports whether data is held back in one direction.
func (p *Proxy) Waiting(d Direction) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting[d] > 0
}

// Release lets data pass again in both directions, beginning with the data that was held back. Data
// of connections that were cut meanwhile is lost.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d, gate := range p.gates {
		if gate != nil {
			close(gate)
			p.gates[d] = nil
		}
	}
}

// Slow delays each piece of data, in both directions, by d. 0 ends that.
func (p *Proxy) Slow(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Filter calls f with each piece of data before it passes. The numbers of connections begin with 1.
// If f returns false, the piece is lost and its connection is closed. f is called from several
// goroutines. It may call the methods of the proxy. nil lets all data pass.
func (p *Proxy) Filter(f func(connection int, d Direction, data []byte) (pass bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.filter = f
}
