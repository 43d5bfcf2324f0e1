package rabbit

import (
	"errors"
	"fmt"
	"net"

	amqp "github.com/rabbitmq/amqp091-go"
)

// CauseOf puts the end of a session into one of a few words, to count it by: "topology" when it is
// not applied, "code_404" and the like when broker or driver gave one of AMQP's reply codes,
// "network" when the broker cannot be reached, and "closed" for the rest.
func CauseOf(err error) string {
	var reason *amqp.Error
	var network net.Error
	switch {
	case errors.Is(err, ErrNotApplied):
		return "topology"
	case errors.As(err, new(BytesInHandError)):
		return "bytes"
	case errors.As(err, &reason):
		return fmt.Sprintf("code_%d", reason.Code)
	case errors.As(err, &network):
		return "network"
	}
	return "closed"
}

// NoAccess tells whether the broker has refused the user, the password or the virtual host. The
// driver says so as well when a connection is cut at that very moment: only one that happens again
// and again means it.
func NoAccess(err error) bool {
	var reason *amqp.Error
	return errors.As(err, &reason) && (reason.Code == amqp.AccessRefused ||
		reason.Code == amqp.NotAllowed)
}
