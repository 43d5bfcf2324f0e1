// Package outside calls the world outside of the choreography, over HTTP with JSON: the payment
// provider and the carrier.
//
// It promises that a call is bounded, guarded by a breaker of the peer's own, and repeated only
// under the same idempotency key; that a refusal by the peer is distinguished from a failure; and
// that a call which was not made has an error of its own. What the peer makes of the key is the
// peer's promise.
package outside

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/resilience"
)

// The bounds of a call.
const (
	callTimeout = 2 * time.Second
	atOnce      = 16 // calls to one peer
	queued      = 32 // calls that wait for their turn
	retries     = 1  // at once; after that the schedule tries again, later
	retryFirst  = 100 * time.Millisecond
	retryMax    = 500 * time.Millisecond
	maxAnswer   = 64 << 10
)

// Peer is one outside world. It is safe for concurrent use.
type Peer struct {
	Breaker *resilience.Breaker
	url     string
	client  *http.Client
	guard   resilience.Guard
}

// New returns the peer at an address, or nil when there is none. While its breaker is open, which
// lasts for the given time, no call is made.
func New(name, address string, open time.Duration, log zerolog.Logger) *Peer {
	if address == "" {
		return nil
	}
	breaker := &resilience.Breaker{Name: name, Open: open, Log: log}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxConnsPerHost, transport.MaxIdleConnsPerHost = atOnce, atOnce
	return &Peer{
		Breaker: breaker, url: strings.TrimSuffix(address, "/"), client: &http.Client{
			Transport: transport,
			// Redirects are not followed: a redirected POST becomes a GET, whose answer would be taken
			// for that of a charge.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		guard: resilience.Chain(
			resilience.Bulkhead(atOnce, queued),
			resilience.Retry(resilience.Retries{Max: retries, First: retryFirst, Longest: retryMax,
				Budget: &resilience.Budget{}}),
			breaker.Guard()),
	}
}

// Through wraps the transport of the peer's requests, such as with one that traces them. It must be
// called before the first request.
func (p *Peer) Through(wrap func(http.RoundTripper) http.RoundTripper) *Peer {
	if p != nil {
		p.client.Transport = wrap(p.client.Transport)
	}
	return p
}

// Close closes the connections that are idle.
func (p *Peer) Close() { p.client.CloseIdleConnections() }

// RefusedError is the peer's definite no: nothing was done, and nothing will be under this key.
type RefusedError struct{ Reason string }

func (e RefusedError) Error() string { return "refused: " + e.Reason }

// Post makes a request under an idempotency key. The error is a RefusedError, a
// resilience.NotMadeError, or a failure, such as a resilience.PeerDownError, after which the
// outcome is unknown. Further guards apply once the breaker lets the call through.
func (p *Peer) Post(ctx context.Context, path, key string, in any,
	further ...resilience.Guard) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("call %s: %w", path, err)
	}
	guard := resilience.Chain(append([]resilience.Guard{p.guard},
		append(further, resilience.Timeout(callTimeout))...)...)
	return guard(ctx, func(ctx context.Context) error { return p.post(ctx, path, key, body) })
}

func (p *Peer) post(ctx context.Context, path, key string, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("call %s: %w", path, err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", key)
	if trace := consumer.CauseOf(ctx).TraceParent; trace != "" {
		request.Header.Set("traceparent", trace) // a transport that traces replaces it
	}
	response, err := p.client.Do(request)
	if err != nil {
		if problem, ok := errors.AsType[*url.Error](err); ok {
			err = problem.Err // without the address, which may hold a password
		}
		return fmt.Errorf("call %s: %w", path, err)
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		Reason string `json:"reason"`
	}
	// Only the first document: an answer that comes twice is one.
	err = json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&answer)
	switch status := response.StatusCode; {
	case status == http.StatusPaymentRequired, status == http.StatusUnprocessableEntity:
		return resilience.Answered(RefusedError{Reason: answer.Reason})
	// this request is to blame
	case status == http.StatusBadRequest, status == http.StatusRequestEntityTooLarge:
		return resilience.Answered(fmt.Errorf("call %s: %s %s", path, response.Status, answer.Reason))
	case status/100 != 2:
		// Also what is between us and the peer: a credential that is not taken any more, a path that
		// leads elsewhere. 409: the call with this key is still under way.
		return fmt.Errorf("call %s: %s %s", path, response.Status, answer.Reason)
	case err != nil && !errors.Is(err, io.EOF): // done needs no words
		return fmt.Errorf("call %s: read the answer: %w", path, err)
	}
	return nil
}
