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
	case errors.As(err, &reason):
		return fmt.Sprintf("code_%d", reason.Code)
	case errors.As(err, &network):
		return "network"
	}
	return "closed"
}
