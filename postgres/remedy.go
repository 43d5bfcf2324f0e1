package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"github.com/lib/pq"
)

// Errors that waiting heals, although no server says so.
var (
	errMigrating = errors.New("another replica has been migrating")
	errStandby   = errors.New(
		"the database is a standby and cannot be written: connect to the primary")
	errReadOnly = errors.New("the database takes no writes (default_transaction_read_only is on)")
)

// migrationError is what a migration failed with.
type migrationError struct {
	file string
	error
}

func (m migrationError) Unwrap() error { return m.error }

// WaitingHelps tells whether waiting may heal an error that a service meets when it opens its
// database: the server is away, is starting, has no connection to spare, or somebody else holds
// what is needed. All others, such as a wrong password, a database that does not exist or a
// migration that fails, need a person; Repair tells what to do.
func WaitingHelps(err error) bool {
	var network net.Error
	switch {
	case err == nil, isCertificate(err), errors.Is(err, pq.ErrSSLNotSupported),
		errors.As(err, new(*fs.PathError)):
		return false
	case errors.Is(err, errMigrating), errors.Is(err, errStandby), errors.Is(err, errReadOnly),
		errors.Is(err, ErrSuperseded), errors.Is(err, ErrUnknownOutcome):
		return true
	}
	if answer := answerOf(err); answer != nil {
		return stateWaits(answer)
	}
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &network) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.As(err, new(syscall.Errno))
}

func stateWaits(answer *pq.Error) bool {
	switch state := string(answer.Code); state {
	case "08P01": // protocol violation; a pooler answers with it, whatever is the matter
		return !strings.Contains(answer.Message, "unsupported startup parameter") &&
			!strings.Contains(answer.Message, "pooling mode")
	// read-only, lock not available, object in use, idle in transaction
	case "25006", "55P03", "55006", "25P03", "0A000":
		return state != "0A000" || outdated(answer)
	// the database was dropped; an extension is not installed; prepared elsewhere
	case "57P04", "58P01", "26000":
		return state == "26000"
	default:
		switch classOf(state) {
		case "08", "40", "53", "57", "58", "XX":
			return true
		}
	}
	return false
}

// isCertificate tells whether a certificate, of either side, is refused.
func isCertificate(err error) bool {
	// a TLS alert
	if op, ok := errors.AsType[*net.OpError](err); ok &&
		(op.Op == "remote error" || op.Op == "local error") {
		return true
	}
	return errors.As(err, new(*tls.CertificateVerificationError)) ||
		errors.As(err, new(x509.UnknownAuthorityError)) ||
		errors.As(err, new(x509.HostnameError)) || errors.As(err, new(x509.CertificateInvalidError)) ||
		errors.As(err, new(tls.RecordHeaderError))
}

// Remedy tells what a person must do about an error that does not heal by waiting.
func Remedy(err error) string {
	if m, ok := errors.AsType[migrationError](err); ok {
		return remedyMigration(m)
	}
	if isCertificate(err) {
		return "check sslmode, sslrootcert, sslcert and sslkey in the address of the database, and the " +
			"server's certificate"
	}
	if errors.Is(err, pq.ErrSSLNotSupported) {
		return "the server speaks no TLS: set sslmode=disable, if the line to it is safe, or ssl = on " +
			"in the server"
	}
	if strings.Contains(err.Error(), "out-of-order") {
		return "give the migration a number above those that have been applied"
	}
	answer := answerOf(err)
	switch {
	case answer == nil:
		return "correct the address of the database or its migrations, and start again"
	case answer.Code == "08P01":
		return poolerRemedy
	case classOf(string(answer.Code)) == "28":
		return "check the user and the password in the address of the database, " +
			"and the server's pg_hba.conf"
	case answer.Code == "3D000", answer.Code == "57P04":
		return "create the database, or correct its name in the address"
	case answer.Code == "3F000":
		return "create the schema, or correct search_path in the address"
	case answer.Code == "42501":
		return "the role of the service must own its database, or be granted what it lacks"
	}
	return "correct the address of the database or its migrations, and start again"
}

func remedyMigration(m migrationError) string {
	if strings.Contains(m.error.Error(), "out-of-order") {
		return "give the migration a number above those that have been applied"
	}
	return fmt.Sprintf("correct the migration %s and start again; without a transaction it may have "+
		"been applied in part", m.file)
}
