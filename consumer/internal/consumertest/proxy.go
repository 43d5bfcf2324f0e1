package consumertest

import (
	"bytes"
	"net"
	"net/url"
	"sync"
	"testing"
)

// Proxy stands between a client and its server, and cuts connections as a test says. A replica
// whose proxies are dead is a crashed replica: nothing that it still does reaches anybody.
type Proxy struct {
	target   string
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool
	dead   bool
	commit Cut
	of     string
	cuts   int
	mute   bool
}

// Cut is what becomes of the next COMMIT of PostgreSQL's protocol.
type Cut int

const (
	Pass      Cut = iota
	CutBefore     // the COMMIT never reaches the server
	CutAnswer     // the server commits, its answer is lost
	DieBefore     // CutBefore, and the proxy is dead
	DieAfter      // CutAnswer, and the proxy is dead
)

const commitSize = 5 + len("COMMIT\x00")

// NewProxy returns a proxy before the server of rawURL, and that URL by way of the proxy.
func NewProxy(t testing.TB, rawURL string) (*Proxy, string) {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: u.Host, conns: map[net.Conn]bool{}}
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	u.Host = p.listener.Addr().String()
	p.running.Go(p.accept)
	t.Cleanup(func() { _ = p.listener.Close(); p.Die(); p.running.Wait() })
	return p, u.String()
}

// OnCommit sets what becomes of the next COMMIT of a transaction that has sent the given text, for
// every consumer commits other things all the time.
func (p *Proxy) OnCommit(c Cut, of string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.commit, p.of = c, of
}

// Cuts tells how many commits were cut.
func (p *Proxy) Cuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}

// Mute makes the proxy swallow what the clients of the connections that are open now send.
func (p *Proxy) Mute() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = true
}

// CutAll ends the connections that are open; new ones are let through.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = false
	for c := range p.conns {
		_ = c.Close()
	}
}

// Die ends all connections and refuses new ones.
func (p *Proxy) Die() {
	p.mu.Lock()
	p.dead = true
	p.mu.Unlock()
	p.CutAll()
}

// Revive lets connections through again.
func (p *Proxy) Revive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = false
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = true, true
		if p.dead {
			_, _ = client.Close(), server.Close()
		}
		p.mu.Unlock()
		p.running.Go(func() { p.copy(client, server) })
	}
}

func (p *Proxy) copy(client, server net.Conn) {
	answer := make(chan Cut, 1) // the fate of the next answer, if it has one
	var both sync.WaitGroup
	both.Go(func() { p.up(client, server, answer) })
	both.Go(func() { p.down(client, server, answer) })
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, client)
	delete(p.conns, server)
}

// up carries what the client says, and looks for COMMIT, which the driver sends in one piece.
func (p *Proxy) up(client, server net.Conn, answer chan<- Cut) {
	defer func() { _, _ = client.Close(), server.Close() }()
	buffer := make([]byte, 64<<10)
	var published []byte // in this transaction
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		p.mu.Lock()
		cut, mute := Pass, p.mute
		switch commit := n == commitSize && bytes.HasSuffix(buffer[:n], []byte("COMMIT\x00")); {
		case !commit:
			published = append(published, buffer[:n]...)
		case p.commit != Pass && bytes.Contains(published, []byte(p.of)):
			cut, p.commit = p.commit, Pass
			p.cuts++
			fallthrough
		default:
			published = published[:0]
		}
		p.mu.Unlock()
		switch {
		case mute:
			continue
		case cut == CutBefore:
			return
		case cut == DieBefore:
			p.Die()
			return
		case cut != Pass:
			answer <- cut
		}
		if _, err := server.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (p *Proxy) down(client, server net.Conn, answer <-chan Cut) {
	defer func() { _, _ = client.Close(), server.Close() }()
	buffer := make([]byte, 64<<10)
	for {
		n, err := server.Read(buffer)
		if err != nil {
			return
		}
		select {
		case cut := <-answer:
			if cut == DieAfter {
				p.Die()
			}
			return
		default:
		}
		if _, err := client.Write(buffer[:n]); err != nil {
			return
		}
	}
}
