package quadrille

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/quadrille-go/quadrille/postgres"
)

// TLS names the files for a connection with TLS, in PEM. The zero value adds nothing to an address.
type TLS struct {
	CA          string // certificates of the authorities that the server's certificate is checked with
	Certificate string // the client's own certificate, with its key; both or none
	Key         string
}

// check refuses files that cannot be read, before a connection fails because of them.
func (t TLS) check() error {
	if (t.Certificate == "") != (t.Key == "") {
		return errors.New("Certificate and Key belong together: set both or none")
	}
	for _, path := range []string{t.CA, t.Certificate, t.Key} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("read a file of the certificates: %w", err)
		}
	}
	return nil
}

// database adds the files to the address of a database.
func (t TLS) database(address string) (string, error) {
	if t == (TLS{}) {
		return address, nil
	}
	u, err := postgres.AddressURL(address)
	if err != nil {
		return "", err
	}
	q := u.Query()
	setIf(q, "sslrootcert", t.CA)
	setIf(q, "sslcert", t.Certificate)
	setIf(q, "sslkey", t.Key)
	u.RawQuery = q.Encode()
	return u.String(), t.check()
}

// amqp adds the files to the addresses of a broker.
func (t TLS) amqp(addresses string) (string, error) {
	if t == (TLS{}) {
		return addresses, nil
	}
	list := strings.Split(addresses, ",")
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
