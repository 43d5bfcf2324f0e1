package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// ErrStandby says that the server would take the stream for a synchronous standby, and how to
// repair that.
var ErrStandby = errors.New("the server would take the stream for a synchronous standby")

// refuseStandby refuses to stream where synchronous_standby_names matches the stream's session. Any
// session that receives the log counts, a logical one as well: every commit would wait for the
// relay, and hang while none runs.
func (s Source) refuseStandby(ctx context.Context, slot string) error {
	var names string
	if err := s.DB.GetContext(ctx, &names,
		`SELECT current_setting('synchronous_standby_names')`); err != nil {
		return fmt.Errorf("look for synchronous standbys: %w", err)
	}
	if !matchesStandby(names, slot) {
		return nil
	}
	return fmt.Errorf("%w: synchronous_standby_names is %q, and every commit would wait for the "+
		"relay. Name the standbys there, "+
		"such as ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (standby1)', then "+
		"SELECT pg_reload_conf()", ErrStandby, names)
}

// matchesStandby tells whether a session of this name counts as one of the standbys. It goes by the words
// without their grammar, and rather sees one too many.
func matchesStandby(names, session string) bool {
	if strings.Contains(names, "*") {
		return true
	}
	for _, word := range strings.FieldsFunc(names,
		func(r rune) bool { return strings.ContainsRune(` ,()"`+"\t\n\r", r) }) {
		if strings.EqualFold(word, session) {
			return true
		}
	}
	return false
}
