package rabbit_test

import (
	"bytes"
	"context"
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

// withoutClose starts a proxy that drops the frame with which a client begins the close handshake.
func withoutClose(t *testing.T, broker string) string {
	t.Helper()
	connectionClose := []byte{0, 10, 0, 50} // its class and method: AMQP 0-9-1, 1.4.2.8
	return framesProxy(t, broker, nil, func(channel uint16, frame []byte) bool {
		return channel == 0 && bytes.HasPrefix(frame, connectionClose)
	})
}
