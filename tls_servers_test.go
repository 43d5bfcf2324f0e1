package quadrille_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	neturl "net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
)

// authority is a private certificate authority.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true,
		Subject: pkix.Name{CommonName: rand.Text()}, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotAfter: now().Add(time.Hour)}
	key, raw := sign(t, template, authority{})
	certificate, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return authority{certificate, key}
}

// sign makes a key and its certificate, which the authority signs, or else the key itself.
func sign(t *testing.T, template *x509.Certificate, by authority) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if by.key == nil {
		by = authority{template, key}
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, by.certificate, &key.PublicKey, by.key)
	if err != nil {
		t.Fatal(err)
	}
	return key, raw
}

// file writes the certificate of the authority and returns the name of the file.
func (a authority) file(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pemOf(a.certificate.Raw), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// server returns the certificate of a server with the name localhost, and its key, both in PEM.
func (a authority) server(t *testing.T, until time.Time) (certificate, key string) {
	t.Helper()
	private, raw := sign(t, &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{
		"localhost"}, NotBefore: until.Add(-time.Hour), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, a)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pemOf(raw)), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// tlsBroker starts a RabbitMQ with a certificate and returns its address for TLS.
func tlsBroker(t *testing.T, certificate, key string) string {
	t.Helper()
	dir, settings := t.TempDir(), ""
	for name, text := range map[string]string{"certfile": certificate, "keyfile": key} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		settings += fmt.Sprintf("ssl_options.%s = %s\n", name, path)
	}
	address := servertest.Addresses(t, 1)[0]
	node := servertest.Cluster(t, 1, settings+"listeners.ssl.1 = "+address+"\n")[0]
	return strings.NewReplacer("amqp:", "amqps:", fmt.Sprintf("127.0.0.1:%d", node.AMQPPort),
		"localhost:"+address[strings.Index(address, ":")+1:]).Replace(node.AMQPURL())
}

// tlsDatabase starts a PostgreSQL with a certificate and returns the address of a database on it.
func tlsDatabase(t *testing.T, certificate, key string) string {
	t.Helper()
	url := servertest.DatabaseOn(t, servertest.PrivatePostgres(t).PostgresURL, "empty",
		func(context.Context, string) error { return nil })
	db, err := sqlx.ConnectContext(t.Context(), "postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // nothing to lose
	var data string
	_, uid, gid, err := localrun.PostgresAccount()
	if err == nil {
		err = db.GetContext(t.Context(), &data, `SHOW data_directory`)
	}
	for name, text := range map[string]string{"server.crt": certificate, "server.key": key} {
		if err == nil {
			err = localrun.WriteFor(filepath.Join(data, name), text, uid, gid)
		}
	}
	for _, query := range []string{`ALTER SYSTEM SET ssl = on`, `SELECT pg_reload_conf()`} {
		if err == nil {
			_, err = db.ExecContext(t.Context(), query)
		}
	}
	u, parseErr := neturl.Parse(url)
	if err != nil || parseErr != nil {
		t.Fatal(err, parseErr)
	}
	u.Host, u.RawQuery = "localhost:"+u.Port(), "sslmode=verify-full"
	return u.String()
}

// Both servers are reached with certificates of a private authority. A certificate of another
// authority, for another name, or that has expired ends the service, which names the settings.
func TestServersWithCertificates(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t)
	ca, other := quadrille.TLS{CA: ours.file(t)}, quadrille.TLS{CA: newAuthority(t).file(t)}
	certificate, key := ours.server(t, now().Add(time.Hour))
	database, broker := tlsDatabase(t, certificate, key), tlsBroker(t, certificate, key)
	expired, expiredKey := ours.server(t, now().Add(-time.Minute))
	oldDatabase, oldBroker := tlsDatabase(t, expired, expiredKey), tlsBroker(t, expired, expiredKey)

	s := members(t, database, broker, func(c *quadrille.Config) {
		c.DatabaseTLS, c.AMQPTLS = ca, ca
	})
	stop := run(t, s)
	publish(t, s, UserJoined{"1", "ada@example.com"})
	becomes(t, s, 1, "welcomed")
	stop()

	otherName := func(address string) string {
		return strings.Replace(address, "@localhost:", "@127.0.0.1:", 1)
	}
	for name, c := range map[string]struct {
		database, broker string
		tls              quadrille.TLS
		want             string
	}{
		"another authority": {database, broker, other, "unknown authority"},
		"no authority":      {database, broker, quadrille.TLS{}, "unknown authority"},
		"another name":      {otherName(database), otherName(broker), ca, "127.0.0.1"},
		"expired":           {oldDatabase, oldBroker, ca, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused(t, members(t, c.database, webtest.NoBroker, func(config *quadrille.Config) {
				config.DatabaseTLS = c.tls
			}), c.want, "DatabaseTLS", "sslrootcert")
			refused(t, members(t, database, c.broker, func(config *quadrille.Config) {
				config.DatabaseTLS, config.AMQPTLS = ca, c.tls
			}), c.want, "AMQPTLS", "cacertfile")
		})
	}
}
