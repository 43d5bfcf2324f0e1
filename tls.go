package quadrille

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/quadrille-go/quadrille/internal/pg"
)

// TLS names the files for a connection with TLS, in PEM. The zero value adds nothing to an address.
type TLS struct {
	CA          string // certificates of the authorities that the server's certificate is checked with
	Certificate string // the client's own certificate, with its key; both or none
	Key         string
}

// check refuses files that cannot be read or used, before a connection fails because of them.
func (t TLS) check() error {
	if (t.Certificate == "") != (t.Key == "") {
		return errors.New("Certificate and Key belong together: set both or none")
	}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return fmt.Errorf("read the certificates of the authorities: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s contains no certificate in PEM", t.CA)
		}
	}
	if t.Certificate != "" {
		if _, err := tls.LoadX509KeyPair(t.Certificate, t.Key); err != nil {
			return fmt.Errorf("read the certificate with its key: %w", err)
		}
	}
	return nil
}

// database adds the files to the address of a database.
func (t TLS) database(address string) (string, error) {
	if t == (TLS{}) {
		return address, nil
	}
	u, err := pg.AddressURL(address)
	if err != nil {
		return "", err
	}
	if err := t.check(); err != nil {
		return "", err
	}
	q := u.Query()
	switch mode := q.Get("sslmode"); mode {
	case "require", "verify-ca", "verify-full":
	default:
		return "", fmt.Errorf("sslmode is %q, with which a connection need not be encrypted and the "+
			"files have no effect: set verify-full", mode)
	}
	setIf(q, "sslrootcert", t.CA)
	setIf(q, "sslcert", t.Certificate)
	setIf(q, "sslkey", t.Key)
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// amqp adds the files to the addresses of a broker.
func (t TLS) amqp(addresses string) (string, error) {
	if t == (TLS{}) {
		return addresses, nil
	}
	list := strings.Split(addresses, ",") // as package rabbit does
	for i, address := range list {
		u, err := url.Parse(address)
		if err != nil || u.Scheme != "amqps" {
			return "", errors.New("the files are for amqps:// only")
		}
		q := u.Query()
		setIf(q, "cacertfile", t.CA)
		setIf(q, "certfile", t.Certificate)
		setIf(q, "keyfile", t.Key)
		u.RawQuery = q.Encode()
		list[i] = u.String()
	}
	return strings.Join(list, ","), t.check()
}

func setIf(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}
