package pg

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

// These errors pass with time, although they have no SQLSTATE of a server.
var (
	errMigrating = errors.New("another replica has been migrating")
	errStandby   = errors.New(
		"the database is a standby and cannot be written: connect to the primary")
	errReadOnly = errors.New("the database takes no writes (default_transaction_read_only is on)")
)

// migrationError is the error of a migration, with its file.
type migrationError struct {
	file string
	error
}

func (m migrationError) Unwrap() error { return m.error }

// WaitingHelps reports whether an error from opening a database may pass with time: the server is
// unreachable, is starting or has no free connection, or another session holds a lock. All other
// errors, such as a wrong password, a missing database or a failing migration, need a person;
// Remedy describes what to do.
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
	if pgErr := serverError(err); pgErr != nil {
		return stateHeals(pgErr)
	}
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &network) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.As(err, new(syscall.Errno))
}

func stateHeals(pgErr *pq.Error) bool {
	switch state := string(pgErr.Code); state {
	case "08P01": // protocol violation, which a pooler sends for every problem
		return !strings.Contains(pgErr.Message, "unsupported startup parameter") &&
			!strings.Contains(pgErr.Message, "pooling mode")
	// read-only, lock not available, object in use, idle in transaction
	case "25006", "55P03", "55006", "25P03", "0A000":
		return state != "0A000" || outdated(pgErr)
	// the database was dropped; an extension is not installed; a prepared statement is missing
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

// isCertificate reports whether one side has refused the certificate of the other.
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

// Remedy describes what a person must do about an error for which WaitingHelps is false.
func Remedy(err error) string {
	if m, ok := errors.AsType[migrationError](err); ok {
		return remedyMigration(m)
	}
	if errors.Is(err, ErrNotMigrated) {
		return "apply them before the service starts (Service.Migrate), or let it apply them " +
			"(Migrate: auto)"
	}
	if isCertificate(err) {
		return "check DatabaseTLS or sslmode, sslrootcert, sslcert and sslkey in the address of the " +
			"database, and the server's certificate"
	}
	if errors.Is(err, pq.ErrSSLNotSupported) {
		return "the server does not use TLS: set sslmode=disable if the network to it is safe, or " +
			"ssl = on in the server"
	}
	if strings.Contains(err.Error(), "out-of-order") {
		return "give the migration a number above those that have been applied"
	}
	pgErr := serverError(err)
	switch {
	case pgErr == nil:
		return "correct the address of the database or its migrations, and start again"
	case pgErr.Code == "08P01":
		return poolerRemedy
	case classOf(string(pgErr.Code)) == "28":
		return "check the user and the password in the address of the database, " +
			"and the server's pg_hba.conf"
	case pgErr.Code == "3D000", pgErr.Code == "57P04":
		return "create the database, or correct its name in the address"
	case pgErr.Code == "3F000":
		return "create the schema, or correct search_path in the address"
	case pgErr.Code == "42501":
		return "make the role of the service the owner of its database, or grant it the missing " +
			"privilege"
	}
	return "correct the address of the database or its migrations, and start again"
}

func remedyMigration(m migrationError) string {
	if strings.Contains(m.error.Error(), "out-of-order") {
		return "give the migration a number above those that have been applied"
	}
	return fmt.Sprintf("correct the migration %s and start again; if it is marked NO TRANSACTION, "+
		"a part of it may have been applied", m.file)
}
