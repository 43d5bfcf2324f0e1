package rabbit

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	amqp "github.com/rabbitmq/amqp091-go"
)

// CauseOf returns the cause of the end of a session as a label for metrics: "topology" if it is not
// applied, "bytes" for a BytesInHandError, "code_404" and the like for a reply code of AMQP,
// "network" if the broker cannot be reached, and "closed" in all other cases.
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

// NoAccess reports whether the broker has refused the user, the password or the virtual host. The
// driver returns the same error if a connection breaks during the login, so only a repeated error
// is reliable.
func NoAccess(err error) bool {
	var reason *amqp.Error
	return errors.As(err, &reason) && (reason.Code == amqp.AccessRefused ||
		reason.Code == amqp.NotAllowed)
}

// NoTrust reports whether TLS with the broker failed: its certificate has another authority or name
// or has expired, or its port does not use TLS, or it refuses the client's own certificate.
func NoTrust(err error) bool {
	alert, ok := errors.AsType[*net.OpError](err)
	return ok && alert.Op == "remote error" ||
		errors.As(err, new(*tls.CertificateVerificationError)) ||
		errors.As(err, new(tls.RecordHeaderError))
}
