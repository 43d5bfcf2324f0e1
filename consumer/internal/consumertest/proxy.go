package consumertest

import (
	"bytes"
	"sync"
	"testing"

	"github.com/quadrille-go/quadrille/quadrilletest"
)

// Proxy is the network between a client and its server, which can also lose a COMMIT of
// PostgreSQL's protocol. A replica whose proxies are down is a crashed replica: nothing that it
// still does reaches anybody.
type Proxy struct {
	*quadrilletest.Proxy

	mu      sync.Mutex
	commit  Cut
	of      string
	cuts    int
	sent    map[int][]byte // by connection, since the last COMMIT
	answers map[int]Cut    // the connections whose next answer is lost
}

// Cut is what becomes of the next COMMIT of PostgreSQL's protocol.
type Cut int

const (
	Pass      Cut = iota
	CutBefore     // the COMMIT never reaches the server
	CutAnswer     // the server commits, its answer is lost
	DieBefore     // CutBefore, and the proxy is down
	DieAfter      // CutAnswer, and the proxy is down
)

const commitSize = 5 + len("COMMIT\x00")

// NewProxy returns a proxy before the server of rawURL, and that URL by way of the proxy.
func NewProxy(t testing.TB, rawURL string) (*Proxy, string) {
	t.Helper()
	p := &Proxy{Proxy: quadrilletest.NewProxy(t, rawURL), sent: map[int][]byte{},
		answers: map[int]Cut{}}
	p.Filter(p.pass)
	return p, p.URL
}

// OnCommit sets what becomes of the next COMMIT of a transaction that has sent the given text, for
// every consumer commits other things all the time.
func (p *Proxy) OnCommit(c Cut, of string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.commit, p.of = c, of
}

// Cuts returns how many commits were cut.
func (p *Proxy) Cuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}

// Mute holds back what clients send, until CutAll loses it.
func (p *Proxy) Mute() { p.Hold(quadrilletest.ToServer) }

// CutAll ends the connections that are open, and what Mute has held back is lost; new ones are let
// through.
func (p *Proxy) CutAll() {
	p.Cut()
	p.Release()
}

// pass decides whether a piece of data passes.
func (p *Proxy) pass(connection int, d quadrilletest.Direction, data []byte) bool {
	var cut Cut
	if d == quadrilletest.FromServer {
		p.mu.Lock()
		cut = p.answers[connection]
		p.mu.Unlock()
	} else if cut = p.sends(connection, data); cut == CutAnswer || cut == DieAfter {
		return true
	}
	if cut == DieBefore || cut == DieAfter {
		p.Down()
	}
	return cut == Pass
}

// sends notes what a client sends and looks for COMMIT, which the driver sends in one piece.
func (p *Proxy) sends(connection int, data []byte) (cut Cut) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(data) != commitSize || !bytes.HasSuffix(data, []byte("COMMIT\x00")) {
		p.sent[connection] = append(p.sent[connection], data...)
		return Pass
	}
	if p.commit != Pass && bytes.Contains(p.sent[connection], []byte(p.of)) {
		cut, p.commit = p.commit, Pass
		p.cuts++
		if cut == CutAnswer || cut == DieAfter {
			p.answers[connection] = cut
		}
	}
	delete(p.sent, connection)
	return cut
}
