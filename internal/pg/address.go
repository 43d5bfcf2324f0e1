package pg

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

var errAddress = errors.New(
	"database URL: want postgres://user:password@host:port/name?sslmode=…, " +
		"postgres:///name?host=/directory/of/the/socket, or host=… dbname=… user=…")

// Address converts the address of a database into a URL that every driver reads. It accepts a URL,
// a URL whose host is the directory of a socket (percent-encoded, or in the parameter host), and
// key=value pairs. An address across a network must set sslmode, since the defaults of drivers
// differ. Of several hosts the first that accepts writes is used. Errors do not repeat the address,
// which contains a password.
func Address(raw string) (string, error) {
	u, err := AddressURL(raw)
	if err != nil {
		return "", err
	}
	return u.String(), nil
}

// AddressURL does the same as Address and returns the parsed URL.
func AddressURL(raw string) (u *url.URL, err error) {
	if raw == "" {
		return nil, fmt.Errorf("it is empty: %w", errAddress)
	}
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
	// A session on a standby would be of no use, although a later host may have been promoted.
	if strings.Contains(host, ",") && q.Get("target_session_attrs") == "" {
		q.Set("target_session_attrs", "read-write")
		u.RawQuery = q.Encode()
	}
	return u, nil
}

// isSocket reports whether host is the directory of a Unix socket, or a name in the abstract
// namespace of Linux, rather than a network host.
func isSocket(host string) bool {
	return strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@")
}

// addressOfURL parses a URL. Package net/url refuses a percent-encoded host, so the function moves
// such a host into the parameter host first.
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
	hosts, ports, several := hostsOf(authority)
	if several {
		socket, port, authority = hosts, ports, ""
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

// hostsOf splits several hosts with their ports, as libpq reads them: host1:port1,host2:port2.
func hostsOf(authority string) (hosts, ports string, several bool) {
	list := strings.Split(authority, ",")
	if len(list) < 2 {
		return "", "", false
	}
	of := make([]string, len(list))
	for i, host := range list {
		list[i], of[i], _ = strings.Cut(host, ":")
		of[i] = cmp.Or(of[i], "5432")
	}
	return strings.Join(list, ","), strings.Join(of, ","), true
}

// addressOfPairs parses key=value pairs, whose values may be in single quotes.
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

// valueOf reads a value up to a space or to its closing quote. A backslash escapes the next
// character.
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
