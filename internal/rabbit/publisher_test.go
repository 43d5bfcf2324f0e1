package rabbit_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/internal/rabbit"
)

func message(key string, n int, mandatory bool) rabbit.Message {
	return rabbit.Message{Exchange: "x", Key: key, Mandatory: mandatory,
		Publishing: amqp.Publishing{MessageId: fmt.Sprint(key, n), DeliveryMode: amqp.Persistent,
			Body: []byte("{}")}}
}

func batch(key string, from, n int, mandatory bool) []rabbit.Message {
	var messages []rabbit.Message
	for i := range n {
		messages = append(messages, message(key, from+i, mandatory))
	}
	return messages
}

func publish(t *testing.T, p *rabbit.Publisher, messages ...rabbit.Message) []*rabbit.Pending {
	t.Helper()
	pendings, err := p.Publish(messages)
	must(t, err)
	return pendings
}

// expect waits for the outcome of a publishing, fails the test unless it is want, and returns the
// reason.
func expect(t *testing.T, p *rabbit.Publisher, pending *rabbit.Pending,
	want rabbit.Outcome) string {
	t.Helper()
	got, why, err := p.Wait(t.Context(), pending)
	must(t, err)
	if got != want {
		t.Fatalf("outcome %d (%v), want %d", got, why, want)
	}
	if (why == nil) != (want == rabbit.Confirmed) {
		t.Fatalf("outcome %d with the reason %v", got, why)
	}
	return fmt.Sprint(why)
}

func TestConfirmedMessageIsInTheQueue(t *testing.T) {
	t.Parallel()
	url, admin := vhost(t, nil)
	p := publisher(t, url)
	for _, pending := range publish(t, p, batch("k", 0, 300, true)...) {
		expect(t, p, pending, rabbit.Confirmed)
	}
	waitFor(t, "all are in the queue", func() bool {
		q, err := admin.QueueDeclarePassive("q", true, false, false, false, nil)
		must(t, err)
		return q.Messages == 300
	})
	d, ok, err := admin.Get("q", true)
	must(t, err)
	if !ok || d.MessageId != "k0" || d.DeliveryMode != amqp.Persistent {
		t.Errorf("first message %+v", d)
	}
}

// PUB-02: the broker confirms a message that it could not route, right after it has returned it.
func TestUnroutableIsNeverConfirmed(t *testing.T) {
	t.Parallel()
	url, _ := vhost(t, nil)
	p := publisher(t, url)
	const total, size = 10_000, 250
	var inFlight []*rabbit.Pending
	for n := 0; n < total; n += size {
		inFlight = append(inFlight, publish(t, p, batch("nobody", n, size, true)...)...)
		for len(inFlight) > rabbit.MaxInFlight-size || n+size == total && len(inFlight) > 0 {
			why := expect(t, p, inFlight[0], rabbit.Returned)
			if !strings.Contains(why, "NO_ROUTE") || !strings.Contains(why, "nobody") {
				t.Fatalf("reason %s", why)
			}
			inFlight = inFlight[1:]
		}
	}
	// Each return counts once: a later message with the same id that can be routed is confirmed.
	routed := message("k", 0, true)
	routed.MessageId = "nobody0"
	expect(t, p, publish(t, p, routed)[0], rabbit.Confirmed)
}

// PUB-03: no return is lost, even if every message in flight is returned and nobody reads.
func TestReturnsAreNotDroppedWhenNobodyReads(t *testing.T) {
	t.Parallel()
	url, _ := vhost(t, nil)
	p := publisher(t, url)
	pendings := publish(t, p, batch("nobody", 0, rabbit.MaxInFlight-1, true)...)
	last := publish(t, p, message("k", 0, true))
	expect(t, p, last[0], rabbit.Confirmed) // all messages before it have been returned by now
	for _, pending := range pendings {
		expect(t, p, pending, rabbit.Returned)
	}
}

func TestUnroutableWithoutMandatoryIsConfirmed(t *testing.T) {
	t.Parallel()
	url, _ := vhost(t, nil)
	p := publisher(t, url)
	expect(t, p, publish(t, p, message("nobody", 0, false))[0], rabbit.Confirmed)
}

// PUB-04: a full queue refuses messages until it has room again.
func TestFullQueueRefuses(t *testing.T) {
	t.Parallel()
	url, admin := vhost(t, amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
	p := publisher(t, url)
	waitFor(t, "the full queue refuses", func() bool {
		got, why, err := p.Wait(t.Context(), publish(t, p, message("k", 0, true))[0])
		must(t, err)
		return got == rabbit.Refused && strings.Contains(why.Error(), "nack")
	})
	_, err := admin.QueuePurge("q", false)
	must(t, err)
	waitFor(t, "the queue takes messages again", func() bool {
		got, _, err := p.Wait(t.Context(), publish(t, p, message("k", 1, true))[0])
		must(t, err)
		return got == rabbit.Confirmed
	})
}

func TestUnsendableMessageAffectsNoOther(t *testing.T) {
	t.Parallel()
	url, _ := vhost(t, nil)
	p := publisher(t, url)
	long := strings.Repeat("l", 256)
	faults := map[string]func(m *rabbit.Message){
		"routing key":      func(m *rabbit.Message) { m.Key = long },
		"exchange":         func(m *rabbit.Message) { m.Exchange = long },
		"message-id":       func(m *rabbit.Message) { m.MessageId = long },
		"type":             func(m *rabbit.Message) { m.Type = long },
		"app-id":           func(m *rabbit.Message) { m.AppId = long },
		"correlation-id":   func(m *rabbit.Message) { m.CorrelationId = long },
		"content-type":     func(m *rabbit.Message) { m.ContentType = long },
		"header name":      func(m *rabbit.Message) { m.Headers = amqp.Table{long: "x"} },
		"not supported":    func(m *rabbit.Message) { m.Headers = amqp.Table{"x": struct{}{}} },
		"reply-to":         func(m *rabbit.Message) { m.ReplyTo = long },
		"expiration":       func(m *rabbit.Message) { m.Expiration = long },
		"user-id":          func(m *rabbit.Message) { m.UserId = long },
		"content-encoding": func(m *rabbit.Message) { m.ContentEncoding = long },
		"header name of 25": func(m *rabbit.Message) {
			m.Headers = amqp.Table{"x": amqp.Table{long: "x"}}
		},
	}
	for what, f := range faults {
		bad := message("k", 1, true)
		f(&bad)
		pendings := publish(t, p, message("k", 0, true), bad, message("k", 2, true))
		expect(t, p, pendings[0], rabbit.Confirmed)
		if why := expect(t, p, pendings[1], rabbit.Unsendable); !strings.Contains(why, what) {
			t.Errorf("%s: reason %s", what, why)
		}
		expect(t, p, pendings[2], rabbit.Confirmed)
	}
}

// A connection that breaks counts against no message, not even at the moment when the driver has
// closed the connection and not yet the channel.
func TestBrokenConnectionBlamesNoMessage(t *testing.T) {
	t.Parallel()
	url, _ := vhost(t, nil)
	large := message("k", 0, true)
	large.Body = make([]byte, 100<<10) // larger than the buffer, so that the driver's own write fails
	for name, m := range map[string]rabbit.Message{"large": large, "small": message("k", 0, true)} {
		broken, closed := publisher(t, url), publisher(t, url)
		broken.Break(errors.New("broken connection"))
		closed.HalfClose()
		for how, p := range map[string]*rabbit.Publisher{"broken": broken, "closed": closed} {
			if pendings, err := p.Publish([]rabbit.Message{m}); !errors.Is(err, rabbit.ErrClosed) {
				t.Errorf("%s message on a %s connection: error %v, %d pendings", name, how, err,
					len(pendings))
			}
		}
	}
}

func TestTooManyInFlightAreNotSent(t *testing.T) {
	t.Parallel()
	url, _ := vhost(t, nil)
	p := publisher(t, url)
	pendings := publish(t, p, batch("k", 0, rabbit.MaxInFlight, true)...)
	if _, err := p.Publish(batch("k", 0, 1, true)); err == nil {
		t.Error("one more than MaxInFlight was published")
	}
	for _, pending := range pendings {
		expect(t, p, pending, rabbit.Confirmed)
	}
	expect(t, p, publish(t, p, message("k", 0, true))[0], rabbit.Confirmed)
}

// The end of a session makes the outcome of everything in flight unknown, and no more can be
// published.
func TestEndOfSessionMakesOutcomesUnknown(t *testing.T) {
	t.Parallel()
	url, _ := vhost(t, nil)
	p := publisher(t, url)
	lost := message("k", 0, true)
	lost.Exchange = "missing" // 404 closes the channel
	for _, pending := range publish(t, p, append([]rabbit.Message{lost},
		batch("k", 0, 100, true)...)...) {
		expect(t, p, pending, rabbit.Unknown)
	}
	err := waitClosed(t, p.Session)
	if !errors.Is(err, rabbit.ErrClosed) || rabbit.ServerCode(err) != amqp.NotFound {
		t.Errorf("the session ended with %v (code %d)", err, rabbit.ServerCode(err))
	}
	if _, err := p.Publish(batch("k", 0, 1, true)); !errors.Is(err, rabbit.ErrClosed) {
		t.Errorf("publishing on a closed session: %v", err)
	}
}

// A session on which the broker has refused a route from its start is replaced, since a channel
// that was opened without a leader of the queue never publishes to it. A queue that has become
// full, and another route, leave the session alone.
func TestSessionEndsWhenARouteWasAlwaysRefused(t *testing.T) {
	t.Parallel()
	url, _ := vhost(t, amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
	p := publisher(t, url)
	p.SetRenewAfter(0)
	n := 0
	refuse := func(p *rabbit.Publisher) {
		waitFor(t, "the full queue refuses", func() bool {
			n++
			got, _, err := p.Wait(t.Context(), publish(t, p, message("k", n, true))[0])
			must(t, err)
			return got == rabbit.Refused
		})
	}
	refuse(p)
	if err := p.Err(); err != nil {
		t.Errorf("a queue that has become full ends the session: %v", err)
	}
	young := publisher(t, url)
	refuse(young)
	if err := young.Err(); err != nil {
		t.Errorf("the first refusal ends the session: %v", err)
	}
	young.SetRenewAfter(0)
	expect(t, young, publish(t, young, message("nobody", 0, false))[0], rabbit.Confirmed)
	refuse(young)
	if err := young.Err(); err == nil || !strings.Contains(err.Error(), "began: k") {
		t.Errorf("the session of a refused route goes on: %v", err)
	}
}
