package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// The bounds of a request to a service.
const (
	requestTimeout = 10 * time.Second
	maxAnswer      = 32 << 20
)

// Client calls the admin endpoints of the services of a choreography. It may be copied, and is safe
// for concurrent use while its fields do not change.
//
// A read goes to the next replica of the service when one has not answered for half a second. A
// write goes to one replica alone. Errors are a Problem where the service has refused, and
// Unreachable recognises those of a service that is away.
type Client struct {
	Services []string // all of the choreography, by name
	// Replicas returns the base URLs of the replicas of a service, such as "http://10.0.0.7:8080".
	Replicas func(service string) ([]string, error)
	Token    string // for the header Authorization; empty: none is sent
}

// Service returns one of the services, which is called over HTTP.
func (c *Client) Service(name string) Service { return remote{c, name} }

// Call makes a request to a service, also to a route of its own, and decodes its JSON answer into
// out, unless nil. A body that is not nil is sent as JSON. It takes at most 10 seconds, or until
// the deadline of ctx if there is one.
func (c *Client) Call(ctx context.Context, service, method, path string, header map[string]string,
	body, out any) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, requestTimeout)
		defer cancel()
	}
	r := request{c, service, method, path, header, nil}
	if body != nil {
		var err error
		if r.body, err = json.Marshal(body); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	answer, err := r.send(ctx)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("read answer of %s: %w", service, err)
	}
	return nil
}

// Unreachable reports whether err means that a service is away: its address is not known, no
// replica answers, or it has no database.
func Unreachable(err error) bool {
	var away unreachable
	var p Problem
	return errors.As(err, &away) || errors.As(err, &p) && p.Status == http.StatusServiceUnavailable
}

// unreachable is the reason why a service cannot be called.
type unreachable struct{ error }

func (u unreachable) Unwrap() error { return u.error }

// request is a request to a service, whichever replica executes it.
type request struct {
	client                *Client
	service, method, path string
	header                map[string]string
	body                  []byte // nil: none
}

// to sends the request to one address and returns the body of the answer.
func (r request) to(ctx context.Context, base string) ([]byte, error) {
	h, err := http.NewRequestWithContext(ctx, r.method, base+r.path, bytes.NewReader(r.body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if r.body != nil {
		h.Header.Set("Content-Type", "application/json")
	}
	for name, value := range r.header {
		h.Header.Set(name, value)
	}
	if r.client.Token != "" {
		h.Header.Set("Authorization", "Bearer "+r.client.Token)
	}
	response, err := http.DefaultClient.Do(h)
	if err != nil {
		return nil, unreachable{fmt.Errorf("request to %s: %w", r.service, err)}
	}
	defer func() { _ = response.Body.Close() }()
	var answer []byte
	if response.ContentLength <= maxAnswer { // of a longer one nothing is read
		answer, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	}
	if err != nil {
		return nil, unreachable{fmt.Errorf("read answer of %s: %w", r.service, err)}
	}
	if response.ContentLength > maxAnswer || len(answer) > maxAnswer {
		return nil, fmt.Errorf("read answer of %s to %s %s: it has more than %d bytes", r.service,
			r.method, r.path, maxAnswer)
	}
	if response.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s answers %w", r.service, problemOf(response.StatusCode, answer))
	}
	return answer, nil
}

// problemOf reads problem details. Without them the status speaks for itself.
func problemOf(status int, body []byte) Problem {
	var p Problem
	if json.Unmarshal(body, &p) != nil || p.Detail == "" {
		p = Problem{Detail: http.StatusText(status)}
	}
	p.Status = status
	return p
}
