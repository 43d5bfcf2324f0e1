package events

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
)

// headers are the JSON of what has no column of its own where a record is a row.
type headers struct {
	Source        string    `json:"source"`
	DataSchema    string    `json:"dataschema"`
	CorrelationID string    `json:"correlationid"`
	CausationID   string    `json:"causationid,omitempty"`
	TraceParent   string    `json:"traceparent,omitempty"`
	Time          time.Time `json:"time"`
}

// Headers returns source, schema, correlation, causation, trace and time of a record as JSON, for
// a table that keeps records.
func (r Record) Headers() ([]byte, error) {
	data, err := json.Marshal(headers{r.Source, r.DataSchema, r.CorrelationID, r.CausationID,
		r.TraceParent, r.Time})
	if err != nil {
		return nil, fmt.Errorf("headers of %s: %w", r.Type, err)
	}
	return data, nil
}

// SetHeaders is the reverse of Headers.
func (r *Record) SetHeaders(data []byte) error {
	var h headers
	if err := json.Unmarshal(data, &h); err != nil {
		return fmt.Errorf("headers of event %s: %w", r.ID, err)
	}
	r.Source, r.DataSchema, r.Time = h.Source, h.DataSchema, h.Time
	r.CorrelationID, r.CausationID, r.TraceParent = h.CorrelationID, h.CausationID, h.TraceParent
	return nil
}
