// Package admin is what an operator sees of a service and does to it, over HTTP: the routes under
// /admin/ with their JSON, the Handler that serves them, and the Client that calls them. A service
// and a client of it are the same interface, Service.
//
// A Client knows all services of a choreography and the replicas of each. It calls the next replica
// when one does not answer, and names the services that are away, instead of failing because of
// them.
//
// The endpoint has no authentication of its own; see quadrille.Service.Admin.
package admin

import (
	"encoding/json"
	"time"
)

// Event is an event that the service has published about a subject, or an outside call that it has
// requested about it.
type Event struct {
	ID            string          `json:"id"`
	Type          string          `json:"type"`
	Source        string          `json:"source"`
	Subject       string          `json:"subject"`
	CorrelationID string          `json:"correlation_id"`
	CausationID   string          `json:"causation_id,omitempty"`
	Time          time.Time       `json:"time"`
	Data          json.RawMessage `json:"data"`
	// Due is when a deadline is delivered, or the next attempt of a call is made.
	Due *time.Time `json:"due,omitempty"`
	// Call is what became of an outside call; nil: this is an event, or a deadline.
	Call *Call `json:"call,omitempty"`
}

// Call is what became of an outside call.
type Call struct {
	Attempts   int             `json:"attempts"` // that failed
	Reason     string          `json:"reason,omitempty"`
	Parked     bool            `json:"parked,omitempty"`
	Answer     string          `json:"answer,omitempty"` // the type of the answer
	AnswerData json.RawMessage `json:"answer_data,omitempty"`
	AnsweredAt *time.Time      `json:"answered_at,omitempty"` // nil: not yet
}

// Handled is an event that the service has accepted: it has handled it, or the event pends there.
type Handled struct {
	Owner string    `json:"owner"` // the service that published it
	ID    string    `json:"id"`
	Type  string    `json:"type"`
	At    time.Time `json:"at"` // it was accepted; its effect is later if it had to be retried
	// Unhandled is retry, call, unknown, parked or discarded; empty: the event was handled.
	Unhandled string `json:"unhandled,omitempty"`
	// Content is the fingerprint of its data, as in Published; nil: an earlier release accepted it.
	Content *int64 `json:"content,string,omitempty"`
}

// Parked is something that waits for a person, in a list: its size instead of its bytes.
type Parked struct {
	Service   string    `json:"service,omitempty"` // that has parked it; set by Client
	Owner     string    `json:"owner"`
	ID        string    `json:"id"`
	Kind      string    `json:"kind"` // retry, deadline, call, unknown or evidence
	Type      string    `json:"type"`
	Subject   string    `json:"subject"`
	Size      int64     `json:"size"` // of the body, in bytes
	Attempts  int       `json:"attempts"`
	Reason    string    `json:"reason"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// ParkedEvent is something that waits for a person, with its envelope and its bytes.
type ParkedEvent struct {
	Parked
	Exchange   string `json:"exchange"`
	RoutingKey string `json:"routing_key"`
	Attributes any    `json:"attributes"` // of CloudEvents, by their names
	Body       []byte `json:"body"`
	// Original is the body with which it was parked, if an operator has edited it.
	Original []byte `json:"original,omitempty"`
}

// ParkedPage is a page of the list of what is parked, oldest first.
type ParkedPage struct {
	Parked []Parked `json:"parked"`
	// the parameter after of the next page; empty: the last one
	Next string `json:"next,omitempty"`
}

// DryRun is what would happen if a parked event were handled now.
type DryRun struct {
	Error     string  `json:"error,omitempty"` // why it would fail
	Publishes []Event `json:"publishes"`       // events, deadlines and calls
}

// ReplayRequest says what to publish again. Exactly one of its fields is set.
type ReplayRequest struct {
	IDs        []string   `json:"ids,omitempty"`         // at most 1000
	Since      *time.Time `json:"since,omitempty"`       // all events since then
	AgoSeconds float64    `json:"ago_seconds,omitempty"` // since then by the database's clock
}

// Replay is a request to publish history again, and its outcome.
type Replay struct {
	Service     string     `json:"service,omitempty"` // that publishes it; set by Client
	ID          int64      `json:"id"`
	Since       *time.Time `json:"since,omitempty"`
	Events      *int64     `json:"events,omitempty"` // how many were requested by their ids
	Published   int64      `json:"published"`
	Refused     int64      `json:"refused"`
	Held        int64      `json:"held"`             // not published, because they are held
	Reason      string     `json:"reason,omitempty"` // of the last event that was refused or is held
	RequestedAt time.Time  `json:"requested_at"`
	DoneAt      *time.Time `json:"done_at,omitempty"` // all events were published and confirmed
	EndedAt     *time.Time `json:"ended_at,omitempty"`
}

// ReplayPage is a page of the replay requests, the newest first.
type ReplayPage struct {
	Replays []Replay `json:"replays"`
	// the parameter after of the next page; empty: the last one
	Next string `json:"next,omitempty"`
}

// Relay is the state of a service's relay.
type Relay struct {
	Service  string    `json:"service,omitempty"` // that it publishes for; set by Client
	Wanted   string    `json:"wanted"`            // window or stream
	Source   string    `json:"source"`            // in use
	Token    int64     `json:"token"`             // of the leader
	Since    time.Time `json:"since"`             // the leader leads; zero: no replica has led
	Leader   string    `json:"leader"`            // its service, host and process
	Slot     *Slot     `json:"slot,omitempty"`
	Replicas []Replica `json:"replicas"` // that run, the leader first
	Warnings []string  `json:"warnings,omitempty"`
}

// Slot is the replication slot of a stream.
type Slot struct {
	Name     string `json:"name"`
	State    string `json:"state"` // as in pg_replication_slots.wal_status; empty: it does not exist
	Active   bool   `json:"active"`
	LagBytes int64  `json:"lag_bytes"` // of the log that the server keeps for it
}

// Replica is a running relay.
type Replica struct {
	ID      string        `json:"id"`
	Name    string        `json:"name"` // of its service
	Host    string        `json:"host"`
	PID     int           `json:"pid"`
	Leads   bool          `json:"leads"`
	Started time.Time     `json:"started_at"`
	Seen    time.Time     `json:"seen_at"`
	Keep    time.Duration `json:"keep"` // of published events, in nanoseconds; negative: without end
}

// BreakerState says whether a circuit breaker makes calls.
type BreakerState string

// The states of a circuit breaker. One that is half open makes one call, whose result closes or
// opens it.
const (
	Closed   BreakerState = "closed"
	Open     BreakerState = "open"
	HalfOpen BreakerState = "half-open"
)

// Breaker is the state of a circuit breaker in one replica.
type Breaker struct {
	Service  string       `json:"service,omitempty"` // that makes the calls; set by Client
	Name     string       `json:"name"`
	State    BreakerState `json:"state"`
	Since    time.Time    `json:"since,omitzero"`
	Failures uint32       `json:"failures"` // in a row
	Opened   int64        `json:"opened"`   // times, since the start of the process
	Refused  int64        `json:"refused"`  // calls that were not made
}

// Projection is the progress of a generation of a projection.
type Projection struct {
	Name       string    `json:"name"`
	Generation int       `json:"generation"`
	Version    int       `json:"version"`
	Live       bool      `json:"live"` // readers see it; otherwise it is being built
	Done       int64     `json:"done"` // applied facts
	Of         int64     `json:"of"`   // all stored facts, or a few more
	StartedAt  time.Time `json:"started_at"`
	Note       string    `json:"note,omitempty"`  // why it was reset to the beginning
	Error      string    `json:"error,omitempty"` // why it makes no progress
}
