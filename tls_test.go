package quadrille_test

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille"
)

// Files of certificates that cannot be used, or with which a connection would not be encrypted all
// the same, are refused before anything connects. They count for LeaderDatabase as well.
func TestTLSFilesAreUsedOrRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	server.Close()
	good, bad := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "bad.pem")
	for path, data := range map[string][]byte{good: pemOf(server.Certificate().Raw),
		bad: []byte("no PEM")} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const secure = "postgres://u:hush@h/d?sslmode=verify-full"
	config := func(c quadrille.Config) (*quadrille.Service, error) {
		c.Name = "members"
		return quadrille.New(c)
	}
	for want, c := range map[string]quadrille.Config{
		`sslmode is "disable"`: {Database: "postgres://u:hush@h/d?sslmode=disable",
			DatabaseTLS: quadrille.TLS{CA: good}, AMQP: "amqp://h/"},
		"LeaderDatabase: sslmode": {Database: secure, DatabaseTLS: quadrille.TLS{CA: good},
			LeaderDatabase: "postgres://u:hush@h/d?sslmode=disable", AMQP: "amqp://h/"},
		"no certificate in PEM": {Database: secure, DatabaseTLS: quadrille.TLS{CA: bad},
			AMQP: "amqp://h/"},
		"is a directory": {Database: secure, AMQP: "amqps://h/", AMQPTLS: quadrille.TLS{CA: dir}},
		"read the certificate with its key": {Database: secure, AMQP: "amqps://h/",
			AMQPTLS: quadrille.TLS{Certificate: good, Key: bad}},
	} {
		if _, err := config(c); !errors.Is(err, quadrille.ErrMisconfigured) ||
			!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%v, want %s", err, want)
		}
	}
	s, err := config(quadrille.Config{Database: secure, DatabaseTLS: quadrille.TLS{CA: good},
		LeaderDatabase: "postgres://u:hush@leader/d?sslmode=verify-ca", AMQP: "amqps://a/,amqps://b/",
		AMQPTLS: quadrille.TLS{CA: good}})
	if err != nil {
		t.Fatal(err)
	}
	c := s.Config()
	for _, address := range []string{c.Database, c.LeaderDatabase} {
		if !strings.Contains(address, "sslrootcert=") {
			t.Errorf("%s has no authority", address)
		}
	}
	if n := strings.Count(c.AMQP, "cacertfile="); n != 2 {
		t.Errorf("%s: %d have an authority", c.AMQP, n)
	}
}

func pemOf(certificate []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
}
