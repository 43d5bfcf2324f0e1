package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

const envFile = ".quadrille/env"

// settings are those of the environment and of a file, which is read once.
type settings struct {
	lookup func(string) (string, bool)
	path   string // of the file; empty: the default one

	mu    sync.Mutex
	file  map[string]string
	found string // the path of the file; empty: there is none
}

// Setting returns a setting: the environment's, or that of the file that a running stack has
// written.
func (e *Env) Setting(name string) (string, error) {
	if value := e.Fixed[name]; value != "" {
		return value, nil
	}
	value, err := e.settings.get(name)
	if err == nil && value == "" {
		err = Error{Code: ExitUnreachable, Err: fmt.Errorf("%s is not set, and %s", name,
			e.settings.whereNot()), Next: e.App.howToStart()}
	}
	if err == nil {
		err = e.settings.validate(name, value)
	}
	return value, err
}

func (s *settings) get(name string) (string, error) {
	if value, ok := s.lookup(name); ok && value != "" {
		return value, nil
	}
	file, err := s.all()
	return file[name], err
}

// whereNot says where a setting was looked for in vain.
func (s *settings) whereNot() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found != "" {
		return s.found + " does not have it"
	}
	return "no " + envFile + " is here or above"
}

// all returns the settings of the file.
func (s *settings) all() (map[string]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		file, err := s.read()
		if err != nil {
			return nil, err
		}
		s.file = file
	}
	return s.file, nil
}

// read reads the given file, or looks for the default one from here upwards.
func (s *settings) read() (map[string]string, error) {
	path := s.path
	if path == "" {
		dir, err := os.Getwd()
		if err != nil {
			return nil, fmt.Errorf("read settings: %w", err)
		}
		for path = filepath.Join(dir, envFile); ; path = filepath.Join(dir, envFile) {
			if _, err := os.Stat(path); err == nil {
				break
			}
			if parent := filepath.Dir(dir); parent != dir {
				dir = parent
				continue
			}
			return map[string]string{}, nil
		}
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, Error{Code: ExitUsage, Err: fmt.Errorf("read settings (--env-file): %w", err),
			Next: "name a file with lines such as QUADRILLE_AMQP_URL='amqp://…'"}
	}
	s.found = path
	values, err := parseEnv(content)
	if err != nil {
		return nil, Error{Code: ExitUsage, Err: fmt.Errorf("read settings from %s: %w", path, err),
			Next: "correct the line"}
	}
	return values, nil
}

// parseEnv reads lines of the form: export NAME='value'. Empty lines and those that begin with #
// say nothing.
func parseEnv(content []byte) (map[string]string, error) {
	values := map[string]string{}
	n := 0
	for line := range strings.Lines(string(content)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("line %d is not NAME='value'", n)
		}
		values[name] = strings.Trim(value, `'"`)
	}
	return values, nil
}

// addresses returns where the replicas of a service serve: the setting QUADRILLE_<SERVICE>_URLS,
// with commas between them, or QUADRILLE_<SERVICE>_URL.
func (e *Env) addresses(service string) (list []string, err error) {
	name := "QUADRILLE_" + strings.ToUpper(strings.ReplaceAll(service, "-", "_")) + "_URL"
	url, err := e.Setting(name)
	if err != nil {
		return nil, err
	}
	all, err := e.Setting(name + "S")
	var own Error
	switch {
	case err == nil && slices.Contains(strings.Split(all, ","), url):
		url = all // of the same stack
	case errors.As(err, &own) && own.Code == ExitUsage:
		return nil, err
	}
	if _, err := e.token(); err != nil {
		return nil, err // instead of the answer that it is wrong
	}
	for one := range strings.SplitSeq(url, ",") {
		if one = strings.TrimSuffix(one, "/"); one != "" {
			list = append(list, one)
		}
	}
	return list, nil
}
