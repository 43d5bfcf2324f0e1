package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// The bounds of a request to a service.
const (
	requestTimeout = 10 * time.Second
	maxAnswer      = 32 << 20
	envFile        = ".quadrille/env"
)

// Env is what a command runs in.
type Env struct {
	App    App
	In     io.Reader
	Out    io.Writer
	ErrOut io.Writer
	Output string // table or json
	File   string // of settings
	// Fixed settings come before all others: those of a stack that the command itself has started.
	Fixed map[string]string

	lookup func(string) (string, bool)
	mu     sync.Mutex
	file   map[string]string
}

// howToStart is a hint with the command that starts the services, if the program has one.
func (a App) howToStart() string {
	if a.Start == "" {
		return "are the services running?"
	}
	return "are the services running? start them with: " + a.Start
}

// exampleServices are one or two services of the topology, for examples in help.
func (a App) exampleServices() string {
	var names []string
	for _, s := range a.Topology.Services[:min(2, len(a.Topology.Services))] {
		names = append(names, s.Name)
	}
	return cmp.Or(strings.Join(names, " "), "SERVICE")
}

// Setting returns a setting: the environment's, or that of the file that a running stack has
// written.
func (e *Env) Setting(name string) (string, error) {
	if value := e.Fixed[name]; value != "" {
		return value, nil
	}
	if value, ok := e.lookup(name); ok && value != "" {
		return value, nil
	}
	file, err := e.settings()
	if err != nil {
		return "", err
	}
	if value := file[name]; value != "" {
		return value, nil
	}
	return "", Error{Code: ExitUnreachable,
		Err:  fmt.Errorf("%s is not set, and no %s is here or above", name, envFile),
		Next: e.App.howToStart()}
}

// settings are those of the file, which is read once.
func (e *Env) settings() (map[string]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.file == nil {
		file, err := e.readFile()
		if err != nil {
			return nil, err
		}
		e.file = file
	}
	return e.file, nil
}

// readFile reads the given file, or looks for the default one from here upwards.
func (e *Env) readFile() (map[string]string, error) {
	path := e.File
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
		return nil, Error{Code: ExitUsage, Err: fmt.Errorf("read settings (--env-file): %w", err)}
	}
	settings, err := ParseEnv(content)
	if err != nil {
		return nil, Error{Code: ExitUsage, Err: fmt.Errorf("read settings from %s: %w", path, err)}
	}
	return settings, nil
}

// ParseEnv reads lines of the form: export NAME='value'. Empty lines and those that begin with #
// say nothing.
func ParseEnv(content []byte) (map[string]string, error) {
	settings := map[string]string{}
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
		settings[name] = strings.Trim(value, `'"`)
	}
	return settings, nil
}

// ServiceURLs returns where the replicas of a service serve: the setting QUADRILLE_<SERVICE>_URLS,
// with commas between them, or QUADRILLE_<SERVICE>_URL.
func (e *Env) ServiceURLs(service string) (list []string, err error) {
	name := "QUADRILLE_" + strings.ToUpper(strings.ReplaceAll(service, "-", "_")) + "_URL"
	url, err := e.Setting(name)
	if err != nil {
		return nil, err
	}
	if all, err := e.Setting(name + "S"); err == nil && slices.Contains(strings.Split(all, ","), url) {
		url = all // of the same stack
	}
	for one := range strings.SplitSeq(url, ",") {
		if one = strings.TrimSuffix(strings.TrimSpace(one), "/"); one != "" {
			list = append(list, one)
		}
	}
	return list, nil
}

// Call makes a request to a service and decodes its JSON answer into out, unless nil. An answer
// that is not of the class 2xx is an Error with the problem's own words.
func (e *Env) Call(ctx context.Context, service, method, path string, header map[string]string,
	body, out any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var sent []byte
	if body != nil {
		var err error
		if sent, err = json.Marshal(body); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	answer, err := e.requestReplicas(ctx, service, method, path, header, sent)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("read answer of %s: %w", service, err)
	}
	return nil
}

// request makes a request to one address and returns the answer's body.
func (e *Env) request(ctx context.Context, base, service, method, path string,
	header map[string]string, sent []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(sent))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if sent != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for name, value := range header {
		request.Header.Set(name, value)
	}
	if token, err := e.Setting("QUADRILLE_TOKEN"); err == nil {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, Error{Code: ExitUnreachable, Err: fmt.Errorf("request to %s: %w", service, err),
			Next: e.App.howToStart()}
	}
	defer func() { _ = response.Body.Close() }()
	var answer []byte
	if response.ContentLength <= maxAnswer { // of a longer one nothing is read
		answer, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	}
	if err != nil {
		return nil, Error{Code: ExitUnreachable, Err: fmt.Errorf("read answer of %s: %w", service, err)}
	}
	if response.ContentLength > maxAnswer || len(answer) > maxAnswer {
		return nil, fmt.Errorf("read answer of %s to %s %s: it has more than %d bytes", service, method,
			path, maxAnswer)
	}
	if response.StatusCode/100 != 2 {
		return nil, refusal(service, response.StatusCode, answer)
	}
	return answer, nil
}

// refusal makes an error of RFC 9457 problem details.
func refusal(service string, status int, body []byte) error {
	var problem struct{ Title, Detail string }
	_ = json.Unmarshal(body, &problem) // without one the status speaks for itself
	published := problem.Detail
	if published == "" {
		published = http.StatusText(status)
	}
	code := ExitFailure
	switch status {
	case http.StatusNotFound:
		code = ExitNotFound
	case http.StatusBadRequest:
		code = ExitUsage
	case http.StatusServiceUnavailable:
		code = ExitUnreachable
	}
	return Error{Code: code, Err: fmt.Errorf("%s answers %d: %s", service, status, published)}
}

// isNotFound reports whether err is an Error with ExitNotFound.
func isNotFound(err error) bool {
	var coded Error
	return errors.As(err, &coded) && coded.Code == ExitNotFound
}
