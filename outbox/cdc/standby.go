package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// ErrStandby says that the server would count the stream as a synchronous standby. The error that
// wraps it contains the statement that prevents that.
var ErrStandby = errors.New("the server would count the stream as a synchronous standby")

// refuseStandby returns an error if synchronous_standby_names matches the stream's session. The
// server counts logical replication sessions as well as physical ones: every commit would wait for
// the relay's confirmation, and would hang while no relay runs.
func (s Source) refuseStandby(ctx context.Context, slot string) error {
	var names string
	if err := s.DB.GetContext(ctx, &names,
		`SELECT current_setting('synchronous_standby_names')`); err != nil {
		return fmt.Errorf("read synchronous_standby_names: %w", err)
	}
	if !matchesStandby(names, slot) {
		return nil
	}
	return fmt.Errorf("%w: synchronous_standby_names is %q, and every commit would wait for the "+
		"relay. Name only the real standbys, "+
		"such as ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (standby1)', then "+
		"SELECT pg_reload_conf()", ErrStandby, names)
}

// matchesStandby reports whether names may contain this session. It compares single words and
// ignores the grammar of the setting, so that it may report a match that the server does not see;
// that only makes the relay use the window.
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
