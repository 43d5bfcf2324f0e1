package quadrilletest

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/events"
)

// Case is an example of what a participant does.
type Case struct {
	// Given are the rows that exist before, as values of the row types of the participant's state.
	Given []any
	// When are the events, commands, deadlines or answers to react to, in this order.
	When []events.Payload
	// At is the time of all of them, which reactions see as e.Time. Default: now.
	At time.Time

	// Rows are all rows that exist afterwards, in any order.
	Rows []any
	// Effects are the effects of all reactions in their order: see consumer.Effects.And.
	Effects consumer.Effects
	// Refused is the code with which a command is refused. Then nothing else happens.
	Refused string
}

// React runs a participant's reactions on rows in memory, without servers. The test fails if the
// result is not exactly that of the case.
func React[S any](t testing.TB, p consumer.Participant[S], c Case) {
	t.Helper()
	memory, err := memoryOf[S](c.Given)
	if err != nil {
		t.Fatalf("given rows: %v", err)
	}
	at := c.At
	if at.IsZero() {
		at = time.Now()
	}
	batch := make([]events.Event, len(c.When))
	for i, payload := range c.When {
		batch[i] = events.Cause(events.Event{}, "/test", at, payload)
	}
	_, results, err := p.ApplyTo(memory, batch...)
	var refusal *consumer.Refusal
	switch {
	case errors.As(err, &refusal) && refusal.Code == c.Refused:
		return
	case err != nil:
		t.Fatalf("%s: %v", p.Name, err)
	case c.Refused != "":
		t.Fatalf("%s refuses nothing, want a refusal with the code %s", p.Name, c.Refused)
	}
	want, err := memoryOf[S](c.Rows)
	if err != nil {
		t.Fatalf("rows afterwards: %v", err)
	}
	if memory.String() != want.String() {
		t.Errorf("%s leaves these rows (table, key, row):\n%swant:\n%s", p.Name, memory, want)
	}
	var effects consumer.Effects
	for _, r := range results {
		effects = effects.And(r.Effects)
	}
	if wanted := (consumer.Effects{}).And(c.Effects); !reflect.DeepEqual(effects, wanted) {
		t.Errorf("%s has the effects\n%+v\nwant\n%+v", p.Name, effects, wanted)
	}
}

// memoryOf returns a memory with rows, each in the table of its type.
func memoryOf[S any](rows []any) (consumer.Memory, error) {
	memory := consumer.Memory{}
	for _, row := range rows {
		table, key, err := place(reflect.TypeFor[S](), reflect.ValueOf(row))
		if err == nil {
			err = memory.Put(table, key, row)
		}
		if err != nil {
			return nil, err
		}
	}
	return memory, nil
}

// place returns the table of a row, and its key.
func place(state reflect.Type, row reflect.Value) (table string, key any, err error) {
	for field := range state.Fields() {
		set, ok := reflect.PointerTo(field.Type).MethodByName("Set") // of consumer.Rows
		if !ok || set.Type.NumIn() != 3 || set.Type.In(2) != row.Type() {
			continue
		}
		if table != "" {
			return "", nil, fmt.Errorf("%s is the row type of two tables, %s and %s: use consumer.Memory "+
				"and Participant.ApplyTo", row.Type(), table, field.Tag.Get("table"))
		}
		table = field.Tag.Get("table")
		for column := range row.Type().Fields() {
			if column.Tag.Get("db") == field.Tag.Get("key") {
				key = row.FieldByIndex(column.Index).Interface()
			}
		}
	}
	if table == "" || key == nil {
		return "", nil, fmt.Errorf("%s is not the row type of a table of %s, or has no field for the key",
			row.Type(), state)
	}
	return table, key, nil
}
