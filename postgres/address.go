package postgres

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

var errAddress = errors.New(
	"database URL: want postgres://user:password@host:port/name?sslmode=…, " +
		"postgres:///name?host=/directory/of/the/socket, or host=… dbname=… user=…")

// Address brings the address of a database into one form, a URL that every driver reads: of a URL,
// of one with a socket's directory as its host (percent-encoded, or the parameter host), or of
// key=value pairs. Across a network it must name its sslmode, since the defaults of drivers differ.
// Its errors do not repeat the address, which holds a password.
func Address(raw string) (string, error) {
	u, err := AddressURL(raw)
	if err != nil {
		return "", err
	}
	return u.String(), nil
}

// AddressURL is Address in its parts.
func AddressURL(raw string) (u *url.URL, err error) {
	if strings.HasPrefix(raw, "postgres://") || strings.HasPrefix(raw, "postgresql://") {
		u, err = addressOfURL(raw)
	} else {
		u, err = addressOfPairs(raw)
	}
	if err != nil {
		return nil, err
	}
	q := u.Query()
	host := q.Get("host")
	if host == "" {
		host = u.Host
	}
	switch {
	case host == "" && q.Get("hostaddr") == "":
		return nil, errAddress
	case q.Get("sslmode") == "" && !isSocket(host):
		return nil, fmt.Errorf("database URL of %s%s: sslmode is not set (disable on this machine, "+
			"verify-full across a network)",
			host, u.Path)
	}
	return u, nil
}

// isSocket tells a directory, or a name in the abstract name space of Linux, from a host.
func isSocket(host string) bool {
	return strings.HasPrefix(host, "/") ||
		strings.HasPrefix(host, "@")
}

// addressOfURL reads a URL. A host that is percent-encoded, which Go refuses, becomes a parameter.
func addressOfURL(raw string) (*url.URL, error) {
	scheme, rest, _ := strings.Cut(raw, "://")
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, rest := rest[:end], rest[end:]
	user := ""
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, authority = authority[:at+1], authority[at+1:]
	}
	var socket, port string
	if strings.HasPrefix(authority, "%") {
		host, after, _ := strings.Cut(authority, ":")
		host, err := url.PathUnescape(host)
		if err != nil || !isSocket(host) {
			return nil, errAddress
		}
		socket, port, authority = host, after, ""
	}
	u, err := url.Parse(scheme + "://" + user + authority + rest)
	if err != nil {
		return nil, errAddress
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errAddress
	}
	if socket != "" {
		q.Set("host", socket)
		if port != "" {
			q.Set("port", port)
		}
	}
	u.Scheme, u.RawQuery = "postgres", q.Encode()
	return u, nil
}

// addressOfPairs reads key=value pairs, whose values may stand in single quotes.
func addressOfPairs(raw string) (*url.URL, error) {
	u := &url.URL{Scheme: "postgres", Path: "/"}
	q := url.Values{}
	var user, password string
	for rest := strings.TrimSpace(raw); rest != ""; rest = strings.TrimSpace(rest) {
		key, after, ok := strings.Cut(rest, "=")
		if key = strings.TrimSpace(key); !ok || key == "" || strings.ContainsAny(key, " \t\n'") {
			return nil, errAddress
		}
		value, left, ok := valueOf(strings.TrimLeft(after, " \t\n"))
		if !ok {
			return nil, errAddress
		}
		rest = left
		switch key {
		case "user":
			user = value
		case "password":
			password = value
		case "dbname", "database":
			u.Path = "/" + value
		default:
			q.Set(key, value)
		}
	}
	switch {
	case password != "":
		u.User = url.UserPassword(user, password)
	case user != "":
		u.User = url.User(user)
	}
	u.RawQuery = q.Encode()
	return u, nil
}

// valueOf reads a value up to a space, or to its closing quote. A backslash takes the next
// character as it is.
func valueOf(text string) (value, rest string, ok bool) {
	var b strings.Builder
	quoted := strings.HasPrefix(text, "'")
	i := 0
	if quoted {
		i++
	}
	for ; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		case quoted && c == '\'':
			return b.String(), text[i+1:], true
		case !quoted && strings.IndexByte(" \t\n", c) >= 0:
			return b.String(), text[i:], true
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), "", !quoted
}
