package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/quadrille-go/quadrille/internal/web"
)

// usage is what a service may be called with. It begins with the name of the service.
const usage = `%[1]s                  run the service until it gets SIGINT or SIGTERM
%[1]s --help           print this and all settings
%[1]s healthcheck      succeed if the service that runs in the same environment is ready
%[1]s config check     check all settings, without connecting to any server
%[1]s migrate status   list the migrations of the database; fail if one is pending
%[1]s migrate up       apply the pending migrations
%[1]s migrate print    print the pending migrations as SQL for psql
`

// errPending ends the program when migrations are pending, after their list was printed.
var errPending = errors.New("migrations are pending")

func command(ctx context.Context, name string, args []string, lookup func(string) (string, bool),
	build Build, out io.Writer) error {
	switch strings.Join(args, " ") {
	case "":
		return run(ctx, name, lookup, build)
	case "healthcheck":
		return healthcheck(ctx, read(name, lookup).Listen)
	case "--help", "-h", "help":
		return help(name, out)
	case "config check":
		return check(name, lookup, build, out)
	case "migrate status", "migrate up", "migrate print":
		return migrate(ctx, args[1], read(name, lookup), build, out)
	}
	return fmt.Errorf("%q: unknown arguments; settings come from the environment. Usage:\n%s", args,
		fmt.Sprintf(usage, name))
}

// help prints the usage and the settings of a service.
func help(name string, out io.Writer) error {
	text := fmt.Sprintf(usage, name) + "\nSettings come from the environment. NAME_FILE is the path " +
		"of a file that contains the value of NAME.\n"
	for _, s := range settings {
		if !s.reads(name) {
			continue
		}
		text += fmt.Sprintf("\n%s\n    %s\n    value: %s\n    default: %s\n", s.of(name), s.meaning,
			s.form(), s.otherwise())
	}
	text = strings.NewReplacer("`", "", "*", strings.ToUpper(prefix+name)).Replace(text)
	_, err := io.WriteString(out, text)
	return err
}

// otherwise returns what applies while the setting is not set.
func (s setting) otherwise() string {
	if s.fallback != "" {
		return "`" + s.fallback + "`"
	}
	return s.instead
}

// check reports all faults of the settings. It connects to no server.
func check(name string, lookup func(string) (string, bool), build Build, out io.Writer) error {
	c := read(name, lookup)
	s, _, err := build(c)
	if err == nil {
		defer func() { _ = s.Close() }()
	}
	err = errors.Join(errors.Join(c.errs...), c.misconfigured(err))
	tokens, faulty := web.LoadTokens(c.Tokens)
	switch {
	case faulty != nil:
		err = errors.Join(err, fmt.Errorf("QUADRILLE_TOKENS_FILE: %w", faulty))
	case c.Listen != "":
		if refused := tokens.Allow(c.Listen); refused != nil {
			err = errors.Join(err, fmt.Errorf("%sLISTEN or _URL: %w", prefixOf(name), refused))
		}
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "the settings of %s are valid; no server was asked\n", name)
	return err
}

// migrate does what an argument says about the migrations of the database.
func migrate(ctx context.Context, what string, c *Config, build Build, out io.Writer) error {
	s, _, err := build(c)
	if faults := errors.Join(c.errs...); faults != nil {
		return faults
	}
	if err != nil {
		return c.misconfigured(err)
	}
	defer func() { _ = s.Close() }()
	switch what {
	case "up":
		return c.misconfigured(s.Migrate(ctx))
	case "print":
		script, err := s.MigrationScript(ctx)
		if err == nil {
			_, err = io.WriteString(out, script)
		}
		return err
	}
	list, err := s.Migrations(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(table, "SERIES\tVERSION\tFILE\tAPPLIED")
	for _, m := range list {
		file, applied := m.File, m.Applied.UTC().Format(time.RFC3339)
		if file == "" {
			file = "(of another release)"
		}
		if m.Applied.IsZero() {
			applied, err = "pending", errPending
		}
		_, _ = fmt.Fprintf(table, "%s\t%d\t%s\t%s\n", m.Series, m.Version, file, applied)
	}
	return errors.Join(table.Flush(), err)
}

// healthcheck requests /readyz. It is part of the program because its container image contains no
// other program that could.
func healthcheck(ctx context.Context, listen string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	// A connection to 0.0.0.0 reaches this machine.
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listen+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("check health: /readyz answers %s", response.Status)
	}
	return nil
}
