package quadrilletest_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/quadrilletest"
)

// echo starts a server that returns each line, and a proxy before it.
func echo(t *testing.T) (p *quadrilletest.Proxy, address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	p = quadrilletest.NewProxy(t, "tcp://"+listener.Addr().String()+"/path")
	u, err := url.Parse(p.URL)
	if err != nil || u.Path != "/path" {
		t.Fatalf("the URL of the proxy is %s: %v", p.URL, err)
	}
	return p, u.Host
}

// client is a connection through a proxy.
type client struct {
	net.Conn
	*bufio.Reader
}

func connect(t *testing.T, address string) client {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(quadrilletest.Timeout)); err != nil {
		t.Fatal(err)
	}
	return client{c, bufio.NewReader(c)}
}

// ask sends a line and returns the answer.
func (c client) ask(line string) (string, error) {
	if _, err := io.WriteString(c.Conn, line+"\n"); err != nil {
		return "", err
	}
	answer, err := c.ReadString('\n')
	return strings.TrimSuffix(answer, "\n"), err
}

func (c client) works(t *testing.T, line string) {
	t.Helper()
	if got, err := c.ask(line); got != line || err != nil {
		t.Errorf("sent %q, received %q: %v", line, got, err)
	}
}

// A proxy that is down refuses connections, no other program gets its port, and it comes up again
// on the same port.
func TestProxyKeepsItsPort(t *testing.T) {
	t.Parallel()
	p, address := echo(t)
	// This listener does not set SO_REUSEADDR, like a program that requests any free port.
	polite := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var refused error
		err := c.Control(func(fd uintptr) {
			refused = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 0)
		})
		return errors.Join(err, refused)
	}}
	for range 3 {
		open := connect(t, address)
		open.works(t, "up")
		p.Down()
		p.Down() // changes nothing
		if _, err := open.ask("down"); err == nil {
			t.Error("the proxy is down and a connection is open")
		}
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close()
			t.Error("the proxy is down and accepts a connection")
		}
		if other, err := polite.Listen(t.Context(), "tcp", address); err == nil {
			_ = other.Close()
			t.Error("the proxy is down, and another program gets its port")
		}
		p.Up()
		p.Up() // changes nothing
	}
	connect(t, address).works(t, "up again")
}

// Cut ends connections, and accepts new ones.
func TestProxyCuts(t *testing.T) {
	t.Parallel()
	p, address := echo(t)
	c := connect(t, address)
	c.works(t, "before")
	p.Cut()
	if _, err := c.ask("after"); err == nil {
		t.Error("the connection was not cut")
	}
	connect(t, address).works(t, "after")
}

// Data that is held back arrives after the release, and only one direction is held.
func TestProxyHoldsOneDirection(t *testing.T) {
	t.Parallel()
	for _, d := range []quadrilletest.Direction{quadrilletest.ToServer, quadrilletest.FromServer} {
		p, address := echo(t)
		c := connect(t, address)
		c.works(t, "before")
		p.Hold(d)
		answer := make(chan string, 1)
		go func() {
			line, _ := c.ask("held")
			answer <- line
		}()
		quadrilletest.WaitFor(t, "data is held back", func() (bool, string) {
			return p.Waiting(d), ""
		})
		if p.Waiting(1 - d) {
			t.Errorf("direction %d: the other direction is held back, too", d)
		}
		select {
		case line := <-answer:
			t.Errorf("direction %d: %q has passed", d, line)
		default:
		}
		p.Release()
		if line := <-answer; line != "held" {
			t.Errorf("direction %d: %q arrived after the release", d, line)
		}
	}
}

// A slow proxy delays both directions.
func TestProxyIsSlow(t *testing.T) {
	t.Parallel()
	p, address := echo(t)
	c := connect(t, address)
	const delay = 50 * time.Millisecond
	p.Slow(delay)
	began := time.Now()
	c.works(t, "slow")
	if took := time.Since(began); took < 2*delay {
		t.Errorf("a request and its answer took %s, want at least %s", took, 2*delay)
	}
}

// A filter sees the data of each connection, and may end the connection instead.
func TestProxyFilters(t *testing.T) {
	t.Parallel()
	p, address := echo(t)
	first, second := connect(t, address), connect(t, address)
	first.works(t, "a")
	second.works(t, "b")
	p.Filter(func(connection int, d quadrilletest.Direction, data []byte) bool {
		return d == quadrilletest.ToServer || connection != 2 || string(data) != "poison\n"
	})
	first.works(t, "poison")
	second.works(t, "b")
	if line, err := second.ask("poison"); err == nil {
		t.Errorf("the filter refused the answer, and it arrived: %q", line)
	}
	p.Filter(nil)
	connect(t, address).works(t, "poison")
}
