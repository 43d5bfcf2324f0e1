package quadrilletest

import (
	"net"
	"time"
)

// bufferSize is the greatest piece of data that a proxy forwards at once.
const bufferSize = 64 << 10

func (p *Proxy) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		if p.listener != listener { // the proxy has gone down meanwhile
			_, _ = client.Close(), server.Close()
			p.mu.Unlock()
			continue
		}
		p.accepted++
		number := p.accepted
		p.connections[client], p.connections[server] = true, true
		p.mu.Unlock()
		p.running.Go(func() { p.forward(number, ToServer, client, server) })
		p.running.Go(func() { p.forward(number, FromServer, server, client) })
	}
}

// forward carries the data of one direction until a side has ended. It holds back the end of a side
// as well.
func (p *Proxy) forward(number int, d Direction, from, to net.Conn) {
	defer func() {
		_, _ = from.Close(), to.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.connections, from)
	}()
	buffer := make([]byte, bufferSize)
	for {
		n, err := from.Read(buffer)
		if !p.pass(number, d, buffer[:n]) {
			return
		}
		if _, failed := to.Write(buffer[:n]); err != nil || failed != nil {
			return
		}
	}
}

// pass returns when a piece of data may pass, or false if it must not.
func (p *Proxy) pass(number int, d Direction, data []byte) bool {
	p.mu.Lock()
	gate, delay := p.gates[d], p.delay
	if gate != nil {
		p.waiting[d]++
	}
	p.mu.Unlock()
	if gate != nil {
		<-gate
		p.mu.Lock()
		p.waiting[d]--
		p.mu.Unlock()
	}
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.done:
		}
	}
	p.mu.Lock()
	filter := p.filter
	p.mu.Unlock()
	return filter == nil || len(data) == 0 || filter(number, d, data)
}
