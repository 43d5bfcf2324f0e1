package outboxtest

import (
	"net"
	"net/url"
	"sync"
	"testing"
)

// Direction is one of the two of a link.
type Direction int

const (
	ToBroker Direction = iota
	FromBroker
)

// Proxy is a network between a relay and its broker that can be held up or cut.
type Proxy struct {
	URL      string
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu      sync.Mutex
	open    [2]chan struct{} // closed: data flows that way
	waiting [2]int           // connections whose data is held back
	down    bool
	conns   []net.Conn
}

// NewLink puts a link before the broker of amqpURL.
func NewLink(t testing.TB, amqpURL string) *Proxy {
	t.Helper()
	u, err := url.Parse(amqpURL)
	if err != nil {
		t.Fatal(err)
	}
	l := &Proxy{target: u.Host}
	if l.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	u.Host = l.listener.Addr().String()
	l.URL = u.String()
	l.Release()
	l.running.Go(l.accept)
	t.Cleanup(func() {
		_ = l.listener.Close()
		l.Release()
		l.Cut()
		l.running.Wait()
	})
	return l
}

func (l *Proxy) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		broker, err := net.Dial("tcp", l.target)
		l.mu.Lock()
		if err != nil || l.down {
			_ = client.Close()
			if err == nil {
				_ = broker.Close()
			}
			l.mu.Unlock()
			continue
		}
		l.conns = append(l.conns, client, broker)
		l.mu.Unlock()
		l.running.Go(func() { l.carry(ToBroker, client, broker) })
		l.running.Go(func() { l.carry(FromBroker, broker, client) })
	}
}

func (l *Proxy) carry(d Direction, from, to net.Conn) {
	defer func() { _ = from.Close(); _ = to.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		l.mu.Lock()
		open := l.open[d]
		l.waiting[d]++
		l.mu.Unlock()
		<-open
		l.mu.Lock()
		l.waiting[d]--
		l.mu.Unlock()
		if _, werr := to.Write(buffer[:n]); err != nil || werr != nil {
			return
		}
	}
}

// Hold keeps back what is sent in one direction.
func (l *Proxy) Hold(d Direction) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[d] = make(chan struct{})
}

// Waiting tells whether data is held back in one direction.
func (l *Proxy) Waiting(d Direction) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting[d] > 0
}

// Release lets all flow again, what was held first.
func (l *Proxy) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for d, c := range l.open {
		if c == nil {
			l.open[d] = make(chan struct{})
		} else {
			select {
			case <-c:
				continue
			default:
			}
		}
		close(l.open[d])
	}
}

// Cut breaks all connections.
func (l *Proxy) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.conns = nil
}

// SetDown cuts all connections and lets no new one through until it is set up again.
func (l *Proxy) SetDown(down bool) {
	l.mu.Lock()
	l.down = down
	l.mu.Unlock()
	if down {
		l.Cut()
	}
}
