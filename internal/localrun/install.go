package localrun

import (
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// postgresPattern matches the server itself in the packages of Debian.
const postgresPattern = "/usr/lib/postgresql/*/bin/postgres"

// ErrNotInstalled means that programs are missing. The error's text says which, and what to do.
var ErrNotInstalled = errors.New("not installed")

// missingError lists programs that are missing.
type missingError []string

func (m missingError) Error() string {
	return "start servers: not installed: " + strings.Join(m, ", ") +
		". Install them (in a checkout scripts/install-servers.sh does it, run as root; on Debian the " +
		"packages are rabbitmq-server and postgresql), or set QUADRILLE_AMQP_URL, " +
		"QUADRILLE_MANAGEMENT_URL and QUADRILLE_POSTGRES_URL to the addresses of running servers"
}

func (missingError) Unwrap() error { return ErrNotInstalled }

// checkInstalled returns an error if a program for these servers is missing.
func checkInstalled(servers []*server) error {
	var missing missingError
	needs := func(name string) bool {
		return slices.ContainsFunc(servers, func(s *server) bool { return s.name == name })
	}
	if needs("postgres") && newest(postgresPattern) == "" {
		missing = append(missing, "PostgreSQL ("+postgresPattern+")")
	}
	if needs("rabbitmq") {
		if newest(rabbitmqPattern) == "" {
			missing = append(missing, "RabbitMQ ("+rabbitmqPattern+")")
		}
		if _, err := exec.LookPath("epmd"); err != nil {
			missing = append(missing, "Erlang (epmd)")
		}
	}
	if _, err := exec.LookPath("flock"); err != nil {
		missing = append(missing, "flock (package util-linux)")
	}
	if len(missing) == 0 {
		return nil
	}
	return missing
}

// newest returns the match with the highest version in its path, or "" if there is none.
func newest(pattern string) string {
	matches, _ := filepath.Glob(pattern) // the patterns are valid constants
	best := ""
	for _, match := range matches {
		if best == "" || slices.Compare(numbers(best), numbers(match)) < 0 {
			best = match
		}
	}
	return best
}

// numbers returns the numbers in a path, so that version 15 is higher than 9.
func numbers(path string) (found []int) {
	digits := func(r rune) bool { return r < '0' || r > '9' }
	for _, field := range strings.FieldsFunc(path, digits) {
		number, _ := strconv.Atoi(field)
		found = append(found, number)
	}
	return found
}
