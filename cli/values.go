package cli

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/quadrille-go/quadrille/internal/rabbit"
)

// validate refuses a value that a setting cannot have, with the name of the setting and the form
// that is wanted. It does not repeat the value, which may have a password.
func (s *settings) validate(name, value string) error {
	var problem string
	switch {
	case strings.TrimSpace(value) != value:
		problem = "it has white space around its value"
	case name == "QUADRILLE_TOKEN" && strings.ContainsAny(value, " \t\r\n"):
		problem = "want one word, as in the tokens file of the services"
	case strings.HasSuffix(name, "AMQP_URL"): // one of each node, with commas between them
		problem = wrongURLs(value, "amqp://user:password@host:5672/", "amqp", "amqps")
	case name == "QUADRILLE_MANAGEMENT_URL":
		problem = wrongURL(value, "http://user:password@host:15672", "http", "https")
	case strings.HasSuffix(name, "_URLS"):
		problem = wrongURLs(value, "http://10.0.0.7:8081,http://10.0.0.8:8081", "http", "https")
	case strings.HasSuffix(name, "_URL") && !strings.HasSuffix(name, "DATABASE_URL"):
		problem = wrongURLs(value, "http://127.0.0.1:8081", "http", "https")
	}
	if problem == "" {
		return nil
	}
	return Error{Code: ExitUsage, Err: fmt.Errorf("%s%s: %s", name, s.from(name), problem),
		Next: "correct it, or unset it to use the one of " + envFile}
}

// wrongURLs is wrongURL of the first that is wrong, of several with commas between them.
func wrongURLs(values, example string, schemes ...string) (problem string) {
	for one := range strings.SplitSeq(values, ",") {
		if problem = wrongURL(one, example, schemes...); problem != "" {
			break
		}
	}
	return problem
}

// wrongURL says what is wrong with an address that has one of the schemes and a host; "": nothing.
func wrongURL(value, example string, schemes ...string) string {
	u, err := url.Parse(value)
	want := "want an address such as " + example
	switch {
	case strings.TrimSpace(value) != value:
		return "white space is around an address; " + want
	case err != nil || u.Scheme == "" || u.Host == "" && !slices.Contains(schemes, u.Scheme):
		return "it is not a URL; " + want
	case !slices.Contains(schemes, u.Scheme):
		return fmt.Sprintf("its scheme is %q; %s", u.Scheme, want)
	case u.Hostname() == "":
		return "it has no host; " + want
	}
	return ""
}

// from says in which file a setting is, if it is not in the environment.
func (s *settings) from(name string) string {
	if s.lookup != nil {
		if value, ok := s.lookup(name); ok && value != "" {
			return ""
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found == "" {
		return ""
	}
	return " (in " + s.found + ")"
}

// token returns the token of the client, or "", when the services may need none.
func (e *Env) token() (string, error) {
	token, err := e.Setting("QUADRILLE_TOKEN")
	if token == "" {
		return "", nil
	}
	return token, err
}

// notApplied is an error of applying the topology: an object that conflicts with it is no question
// of the address.
func (a App) notApplied(err error) error {
	if rabbit.IsConflict(err) {
		return err
	}
	return a.away("QUADRILLE_AMQP_URL", err)
}

// away is an error about the broker, with the setting that has its address.
func (a App) away(setting string, err error) error {
	next := "check the address, the user and the password in it, and that the broker runs there"
	if a.Start != "" {
		next += "\nor start one on this machine: " + a.Command(a.Start)
	}
	return Error{Code: ExitUnreachable, Err: fmt.Errorf("%s: %w", setting, err), Next: next}
}
