package rabbit

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
)

// passwordFile is the parameter of an address that names a file with the password.
const passwordFile = "passwordfile"

// withPassword returns an address with the password of the file that it names, if it names one. It
// reads the file for each session, so that a password can be changed without a restart. The driver
// reads the files of certificates as often.
func withPassword(rawURL string) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", errURL
	}
	path := u.Query().Get(passwordFile)
	if path == "" {
		return rawURL, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the password of the broker: %w", err)
	}
	password := strings.TrimSpace(string(content))
	if password == "" {
		return "", errors.New("read the password of the broker: the file " + path + " is empty")
	}
	u.User = url.UserPassword(u.User.Username(), password)
	return u.String(), nil
}
