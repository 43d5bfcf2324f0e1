package rabbit_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"testing"
)

// drops reports whether a frame is not forwarded. The frame is without its head.
type drops func(channel uint16, frame []byte) bool

// framesProxy starts a proxy for one connection to the broker, and returns its address. Nil drops
// nothing.
func framesProxy(t *testing.T, broker string, ofBroker, ofClient drops) string {
	t.Helper()
	u, err := url.Parse(broker)
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	server, err := net.Dial("tcp", u.Host)
	must(t, err)
	t.Cleanup(func() { _ = server.Close() })
	u.Host = l.Addr().String()
	go func() {
		client, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = server.Close() }()
			if _, err := io.CopyN(server, client, int64(len("AMQP0091"))); err == nil {
				forward(server, client, ofClient)
			}
		}()
		defer func() { _ = client.Close() }()
		forward(client, server, ofBroker)
	}()
	return u.String()
}

// forward copies frames until one side ends.
func forward(to io.Writer, from io.Reader, drop drops) {
	head := make([]byte, 7) // a frame's type, channel and size: AMQP 0-9-1, 4.2.3
	for {
		if _, err := io.ReadFull(from, head); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(head[3:])+1)
		if _, err := io.ReadFull(from, frame); err != nil {
			return
		}
		if drop == nil || !drop(binary.BigEndian.Uint16(head[1:]), frame) {
			_, _ = to.Write(append(bytes.Clone(head), frame...))
		}
	}
}
