package dancers

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// Line is the network between a service and one of its servers: it can be down, so that connections
// end and new ones are refused.
type Line struct {
	t        testing.TB
	address  string // at which it listens
	server   string
	mu       sync.Mutex
	listener net.Listener // nil while it is down
	open     map[net.Conn]bool
	running  sync.WaitGroup
}

// NewLine puts a line before a server, and returns the URL that leads through it.
func NewLine(t testing.TB, server string) (*Line, string) {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	l := &Line{t: t, address: "127.0.0.1:0", server: u.Host, open: map[net.Conn]bool{}}
	l.Up()
	u.Host = l.address
	t.Cleanup(func() { l.Down(); l.running.Wait() })
	return l, u.String()
}

// Up lets connections through, again at the same address.
func (l *Line) Up() {
	listener, err := net.Listen("tcp", l.address)
	if err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listener, l.address = listener, listener.Addr().String()
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
func (l *Line) Down() {
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

func (l *Line) carry(client net.Conn) {
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
