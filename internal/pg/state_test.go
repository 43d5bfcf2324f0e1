package pg_test

import (
	"context"
	"crypto/x509"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// A faulty server or a pooler may send any text as its SQLSTATE.
func TestAnySQLSTATEIsClassified(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"", "0", "2", "40", "5", "XX", "é", "08P0", "this is no code",
		"\x00\x00"} {
		err := error(&pq.Error{Code: pqerror.Code(state)})
		_, _, _, _ = pg.ClassOf(err), pg.DatabaseFault(err), pg.WaitingHelps(err),
			pg.Remedy(err)
		_, _ = pg.IsUniqueViolation(err), pg.CommitError(t.Context(), err)
	}
	if got := pg.ClassOf(&pq.Error{Code: "22"}); got != pg.BadData {
		t.Errorf("class %d of a short code, want %d", got, pg.BadData)
	}
}

// The outcome of a commit follows from the SQLSTATE alone, since a server translates the severity.
func TestOutcomeFollowsFromTheCode(t *testing.T) {
	t.Parallel()
	for _, severity := range []string{"FATAL", "FATALE", "ФАТАЛЬНО", "致命错误", "PANIC", "ПАНИКА",
		"ERROR", "FEHLER", ""} {
		for state, unknown := range map[string]bool{
			"57P01": true, "57P02": true, "57P03": true, "57P05": true, "58030": true, "53100": true,
			"08006": true, "XX000": true, "25P03": true, "": true, "5": true,
			"23505": false, "23503": false, "40001": false, "40P01": false, "57014": false, "25006": false,
			"P0001": false, "22003": false,
		} {
			err := pg.CommitError(t.Context(),
				&pq.Error{Severity: severity, Code: pqerror.Code(state)})
			if errors.Is(err, pg.ErrUnknownOutcome) != unknown {
				t.Errorf("%s %q: %v", severity, state, err)
			}
		}
	}
}

// A server with messages in another language ends a session during a commit. The outcome is
// unknown.
func TestLostCommitOnATranslatedServerIsUnknown(t *testing.T) {
	t.Parallel()
	db := pool(t, translatedServer(t))
	err := pg.InTx(t.Context(), db, func(*sqlx.Tx) error { return nil })
	if !errors.Is(err, pg.ErrUnknownOutcome) {
		t.Errorf("the outcome counts as known: %v", err)
	}
}

// translatedServer starts a server that answers every statement, and ends the session at COMMIT
// with an error in Italian.
func translatedServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveTranslated(c)
		}
	}()
	return "postgres://nobody@" + l.Addr().String() + "/x?sslmode=disable"
}

// serveTranslated implements the server's side of the simple query protocol.
func serveTranslated(c net.Conn) {
	defer func() { _ = c.Close() }()
	var size uint32
	if binary.Read(c, binary.BigEndian, &size) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, c, int64(size)-4)
	send := func(kind byte, body string) {
		_, _ = c.Write(append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4)), body...))
	}
	send('R', "\x00\x00\x00\x00")
	send('Z', "I")
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(c, body); err != nil {
			return
		}
		switch text := strings.TrimRight(string(body), "\x00"); {
		case strings.HasPrefix(text, "BEGIN"):
			send('C', "BEGIN\x00")
			send('Z', "T")
		case strings.HasPrefix(text, "COMMIT"):
			send('E', "SFATALE\x00VFATAL\x00C57P01\x00Mterminazione della connessione su comando "+
				"dell'amministratore\x00\x00")
			return
		default:
			send('C', "SELECT 0\x00")
			send('Z', "I")
		}
	}
}

// WaitingHelps is true for errors that pass with time, and for no others. The others have a remedy.
func TestWaitingHelps(t *testing.T) {
	t.Parallel()
	state := func(code, message string) error {
		return fmt.Errorf("migrate: %w", &pq.Error{Code: pqerror.Code(code), Message: message})
	}
	for name, err := range map[string]error{
		"starting": state("57P03", ""), "shut down": state("57P01", ""),
		"too many connections": state("53300", ""), "disk full": state("53100", ""),
		"lock": state("55P03", ""), "deadlock": state("40P01", ""), "read-only": state("25006", ""),
		"connection": state("08006", ""),
		"pooler that cannot connect": state("08P01",
			"server login has been failing, try again later (server_login_retry)"),
		"refused":          &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED},
		"no socket":        &net.OpError{Op: "dial", Net: "unix", Err: syscall.ENOENT},
		"no such host yet": &net.DNSError{IsNotFound: true}, "EOF": fmt.Errorf("x: %w", io.EOF),
		"bad connection": driver.ErrBadConn, "deadline": context.DeadlineExceeded,
	} {
		if !pg.WaitingHelps(err) {
			t.Errorf("%s: WaitingHelps is false", name)
		}
	}
	for name, err := range map[string]error{
		"syntax": state("42601", ""), "no such table": state("42P01", ""), "there already": state("42P07",
			""), "privilege": state("42501", ""),
		"password": state("28P01", ""), "no entry in pg_hba": state("28000", ""),
		"no database": state("3D000", ""), "no schema": state("3F000", ""),
		"data": state("22P02", ""), "constraint": state("23514", ""), "not supported": state("0A000", ""),
		"no extension":    state("58P01", ""),
		"unknown option":  state("08P01", "unsupported startup parameter: enable_seqscan"),
		"unknown setting": state("22023", ""),
		"certificate":     fmt.Errorf("tls: %w", x509.UnknownAuthorityError{}),
		"another host":    fmt.Errorf("tls: %w", x509.HostnameError{Certificate: &x509.Certificate{}}),
		"no TLS":          pq.ErrSSLNotSupported,
		"TLS alert": &net.OpError{Op: "remote error",
			Err: errors.New("tls: certificate required")},
		"no such file":     &fs.PathError{Op: "open", Path: "root.crt", Err: syscall.ENOENT},
		"order":            errors.New("found 1 missing (out-of-order) migration"),
		"another service":  pg.ErrForeign,
		"shared session":   pg.ErrPooled,
		"dropped database": state("57P04", ""),
	} {
		if pg.WaitingHelps(err) {
			t.Errorf("%s: WaitingHelps is true", name)
		}
		if pg.Remedy(err) == "" {
			t.Errorf("%s has no remedy", name)
		}
	}
}
