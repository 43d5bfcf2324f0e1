package rabbit_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// A broker of which a part is stuck does not answer the close handshake, while its heartbeats and
// deliveries go on. The end of a session must not wait for it: a relay would keep its lead and
// publish nothing.
func TestCloseDoesNotWaitForABrokerThatGoesOn(t *testing.T) {
	t.Parallel()
	broker, admin := filledQueue(t, 1)
	s := open(t, withoutClose(t, broker))
	_, err := rabbit.Subscribe(s, "q", "", 10_000, 1<<30)
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for ctx.Err() == nil {
			if err := admin.PublishWithContext(ctx, "", "q", false, false, amqp.Publishing{
				Body: []byte("x")}); err != nil {
				return
			}
		}
	})
	defer publishing.Wait()
	defer stop()
	closed := make(chan struct{})
	go func() { defer close(closed); s.Close() }()
	waitFor(t, "the session is closed", func() bool {
		select {
		case <-closed:
			return true
		default:
			return false
		}
	})
}

// withoutClose starts a proxy in front of the broker and returns its address. It drops the frame
// with which a client begins the close handshake, and forwards all others.
func withoutClose(t *testing.T, broker string) string {
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
		go func() { _, _ = io.Copy(client, server); _ = client.Close() }()
		defer func() { _ = server.Close() }()
		if _, err := io.CopyN(server, client, int64(len("AMQP0091"))); err != nil {
			return
		}
		head := make([]byte, 7) // a frame's type, channel and size: AMQP 0-9-1, 4.2.3
		for {
			if _, err := io.ReadFull(client, head); err != nil {
				return
			}
			frame := make([]byte, binary.BigEndian.Uint32(head[3:])+1)
			if _, err := io.ReadFull(client, frame); err != nil {
				return
			}
			connectionClose := []byte{0, 10, 0, 50} // its class and method: AMQP 0-9-1, 1.4.2.8
			if binary.BigEndian.Uint16(head[1:]) != 0 || !bytes.HasPrefix(frame, connectionClose) {
				_, _ = server.Write(append(bytes.Clone(head), frame...))
			}
		}
	}()
	return u.String()
}
