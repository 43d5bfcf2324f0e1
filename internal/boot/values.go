package boot

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/outside"
)

// maxDuration is the maximum of a duration in a setting.
const maxDuration = 10 * 365 * 24 * time.Hour

// levels are the log levels.
const levels = "trace debug info warn error fatal panic disabled"

// wrong records that the value of a setting is wrong, with the form that it must have.
func (c *Config) wrong(name, value string) {
	s := c.setting(name)
	shown := fmt.Sprintf("%.40q is wrong", value)
	if s.secret {
		shown = "the value is wrong"
	}
	c.errs = append(c.errs, fmt.Errorf("%s: %s: want %s", name, shown,
		strings.ReplaceAll(s.form(), "`", "")))
}

// String returns a setting from the environment, or from the file that its _FILE variable names, or
// its default. White space around a value of the environment is an error, since no other message
// would show it; the last line of a file may end with a line break.
func (c *Config) String(name string) string {
	s := c.setting(name)
	if value, ok := c.lookup(name); ok && value != "" {
		if strings.TrimSpace(value) != value {
			c.errs = append(c.errs, fmt.Errorf("%s: the value begins or ends with white space: want %s",
				name, strings.ReplaceAll(s.form(), "`", "")))
			return strings.TrimSpace(value)
		}
		return value
	}
	path, ok := c.lookup(name + "_FILE")
	if !ok || path == "" {
		return s.fallback
	}
	content, err := os.ReadFile(path)
	if err != nil {
		c.errs = append(c.errs, fmt.Errorf("%s_FILE: %w", name, err))
	}
	value := strings.TrimSpace(string(content))
	if err == nil && value == "" {
		c.errs = append(c.errs, fmt.Errorf("%s_FILE: the file %s is empty", name, path))
	}
	return value
}

// Require is String for a required setting.
func (c *Config) Require(name string) string {
	value := c.String(name)
	if value == "" {
		c.errs = append(c.errs, fmt.Errorf("%s is not set: set it or %s_FILE to %s", name, name,
			strings.ReplaceAll(c.setting(name).form(), "`", "")))
	}
	return value
}

// choice returns a setting that is one of several words.
func (c *Config) choice(name string, words ...string) string {
	value := c.String(name)
	if !slices.Contains(words, value) {
		c.wrong(name, value)
	}
	return value
}

// level returns the log level of a setting.
func (c *Config) level(name string) zerolog.Level {
	level, err := zerolog.ParseLevel(c.choice(name, strings.Fields(levels)...))
	if err != nil {
		return zerolog.InfoLevel
	}
	return level
}

// hostOf returns the host and port of the address of the API.
func (c *Config) hostOf(name, address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Port() == "" ||
		strings.Trim(u.Path, "/") != "" {
		c.wrong(name, address)
		return ""
	}
	return u.Host
}

// Duration returns a setting such as "15m".
func (c *Config) Duration(name string) time.Duration {
	value := c.String(name)
	d, err := time.ParseDuration(value)
	if err != nil || d < c.setting(name).least || d > maxDuration {
		c.wrong(name, value)
	}
	return d
}

// number returns a setting that is a number from 1 to most.
func (c *Config) number(name string, most int) int {
	value := c.String(name)
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > most {
		c.wrong(name, value)
	}
	return n
}

// Peer returns the outside peer at the address of a setting, or nil if it is not set. Its breaker
// stays open for QUADRILLE_BREAKER_OPEN.
func (c *Config) Peer(name, setting string) *outside.Peer {
	address := c.String(setting)
	if u, err := url.Parse(address); address != "" && (err != nil || u.Scheme != "http" &&
		u.Scheme != "https" || u.Host == "") {
		c.wrong(setting, address)
	}
	return outside.New(name, address, c.Duration("QUADRILLE_BREAKER_OPEN"), c.Log).
		Through(c.traces.Transport)
}

// Countries returns a setting that is a list of country codes of ISO 3166-1 alpha-2, separated by
// commas, or fallback.
func (c *Config) Countries(name string, fallback []string) []string {
	value := c.String(name)
	if value == "" {
		return fallback
	}
	var list []string
	for code := range strings.SplitSeq(value, ",") {
		if code = strings.TrimSpace(code); code == "" {
			continue
		}
		if len(code) != 2 || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			c.wrong(name, code)
		}
		list = append(list, code)
	}
	if len(list) == 0 {
		c.wrong(name, value)
	}
	return list
}

// misconfigured names the settings that an error of the kit is about: the kit names the fields of
// its configuration.
func (c *Config) misconfigured(err error) error {
	if errors.Is(err, quadrille.ErrNotMigrated) {
		return fmt.Errorf("%w\nrun: %s migrate up, or give what %s migrate print prints to psql", err,
			c.name, c.name)
	}
	if !errors.Is(err, quadrille.ErrMisconfigured) {
		return err
	}
	var names []string
	for _, field := range [][2]string{{" Database: ", "*_DATABASE_URL"},
		{"LeaderDatabase", "*_LEADER_DATABASE_URL"}, {"AMQP: ", "*_AMQP_URL"},
		{"OutboxKeep is", "OUTBOX_KEEP"}, {"ReceiptHistory is", "INBOX_KEEP"}} {
		if strings.Contains(strings.ReplaceAll(err.Error(), "\n", " "), field[0]) {
			names = append(names, setting{name: field[1]}.of(c.name))
		}
	}
	if len(names) == 0 { // what the server itself says
		names = []string{setting{name: "*_DATABASE_URL"}.of(c.name)}
	}
	return fmt.Errorf("%s: %w", strings.Join(names, ", "), err)
}
