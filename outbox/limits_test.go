package outbox

import (
	"errors"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/quadrille-go/quadrille/events"
)

func TestBrokerLimitsAreLearnt(t *testing.T) {
	t.Parallel()
	var l brokerLimits
	ended := func(code int, reason string) error {
		return &amqp.Error{Code: code, Reason: reason, Server: true}
	}
	for _, err := range []error{
		nil, errors.New("larger than max size 3"), ended(320, "larger than max size 3"),
		ended(406, "larger than max size 0"),
		ended(406, "inequivalent arg"), ended(403, "write access to exchange 'x' refused"),
		ended(404, "access to topic 'a' in exchange"),
	} {
		if l.learn(err) {
			t.Errorf("the error %v is taken for a limit: %+v", err, l)
		}
	}
	rows := []row{
		{record: events.Record{Type: "a", Data: make([]byte, 3)}},
		{record: events.Record{Type: "a", Data: make([]byte, 4)}},
		{record: events.Record{Type: "b", Data: make([]byte, 3)}},
	}
	l.markUnfit(rows)
	checkFaults(t, rows, false, false, false)
	if !l.learn(ended(406,
		"PRECONDITION_FAILED - message size 4 is larger than configured max size 3")) ||
		!l.learn(ended(403, "ACCESS_REFUSED - access to topic 'b' in exchange 'x' in vhost 'v' refused "+
			"for user 'u'")) {
		t.Fatal("the limits are not learnt")
	}
	l.markUnfit(rows)
	checkFaults(t, rows, false, true, true)
	l.until = time.Now().Add(-time.Second)
	rows[1].fault, rows[2].fault = nil, nil
	l.markUnfit(rows)
	checkFaults(t, rows, false, false, false)
}

// checkFaults fails the test unless exactly the wanted rows have a fault.
func checkFaults(t *testing.T, rows []row, want ...bool) {
	t.Helper()
	for i, r := range rows {
		if (r.fault != nil) != want[i] {
			t.Errorf("row %d: fault %v, want one: %t", i, r.fault, want[i])
		}
	}
}
