package outboxtest

import (
	"net"
	"net/url"
	"sync"
	"testing"
)

// Direction is a direction in which data passes a Proxy.
type Direction int

const (
	ToBroker Direction = iota
	FromBroker
)

// Proxy is a TCP proxy between a relay and its broker. A test can hold back data or cut
// connections.
type Proxy struct {
	URL      string
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu      sync.Mutex
	gates   [2]chan struct{} // data passes while the channel is closed
	waiting [2]int           // connections whose data is held back
	down    bool
	conns   []net.Conn
}

// NewProxy starts a proxy in front of the broker of amqpURL.
func NewProxy(t testing.TB, amqpURL string) *Proxy {
	t.Helper()
	u, err := url.Parse(amqpURL)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: u.Host}
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	u.Host = p.listener.Addr().String()
	p.URL = u.String()
	p.Release()
	p.running.Go(p.accept)
	t.Cleanup(func() {
		_ = p.listener.Close()
		p.Release()
		p.Cut()
		p.running.Wait()
	})
	return p
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		broker, err := net.Dial("tcp", p.target)
		p.mu.Lock()
		if err != nil || p.down {
			_ = client.Close()
			if err == nil {
				_ = broker.Close()
			}
			p.mu.Unlock()
			continue
		}
		p.conns = append(p.conns, client, broker)
		p.mu.Unlock()
		p.running.Go(func() { p.forward(ToBroker, client, broker) })
		p.running.Go(func() { p.forward(FromBroker, broker, client) })
	}
}

func (p *Proxy) forward(d Direction, from, to net.Conn) {
	defer func() { _ = from.Close(); _ = to.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		gate := p.gates[d]
		p.waiting[d]++
		p.mu.Unlock()
		<-gate
		p.mu.Lock()
		p.waiting[d]--
		p.mu.Unlock()
		if _, werr := to.Write(buffer[:n]); err != nil || werr != nil {
			return
		}
	}
}

// Hold holds back all data in one direction.
func (p *Proxy) Hold(d Direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gates[d] = make(chan struct{})
}

// Waiting reports whether data is held back in one direction.
func (p *Proxy) Waiting(d Direction) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting[d] > 0
}

// Release lets data pass again in both directions, beginning with the data that was held back.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d, c := range p.gates {
		if c == nil {
			p.gates[d] = make(chan struct{})
		} else {
			select {
			case <-c:
				continue
			default:
			}
		}
		close(p.gates[d])
	}
}

// Cut closes all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// SetDown(true) closes all connections and refuses new ones until SetDown(false).
func (p *Proxy) SetDown(down bool) {
	p.mu.Lock()
	p.down = down
	p.mu.Unlock()
	if down {
		p.Cut()
	}
}
