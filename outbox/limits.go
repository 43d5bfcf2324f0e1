package outbox

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/quadrille-go/quadrille/rabbit"
)

const (
	limitsValidFor    = 5 * time.Minute // an operator may have changed the broker since
	maxForbiddenTypes = 1000
	accessCode        = 403
)

// brokerLimits are what the broker has said when it ended a session because of one row: which rows
// it would end the next sessions for. Without them each of many such rows costs everybody two
// sessions.
type brokerLimits struct {
	largest        int             // bytes of a body; 0: not known
	forbiddenTypes map[string]bool // types that the user may not publish
	until          time.Time
}

var (
	tooLarge      = regexp.MustCompile(`larger than (?:configured )?max size (\d+)`)
	forbiddenType = regexp.MustCompile(`access to topic '([^']*)' in exchange`)
)

// learn tells whether the reason for which a session has ended says which rows the broker does not
// take.
func (l *brokerLimits) learn(err error) bool {
	code, reason := rabbit.ServerCode(err), ""
	if err != nil {
		reason = err.Error()
	}
	if time.Now().After(l.until) {
		*l = brokerLimits{}
	}
	if m := tooLarge.FindStringSubmatch(reason); m != nil && blamesMessage(code) {
		largest, err := strconv.Atoi(m[1])
		if err != nil || largest <= 0 {
			return false
		}
		l.largest, l.until = largest, time.Now().Add(limitsValidFor)
		return true
	}
	if m := forbiddenType.FindStringSubmatch(reason); m != nil && code == accessCode &&
		len(l.forbiddenTypes) < maxForbiddenTypes {
		if l.forbiddenTypes == nil {
			l.forbiddenTypes = map[string]bool{}
		}
		l.forbiddenTypes[m[1]], l.until = true, time.Now().Add(limitsValidFor)
		return true
	}
	return false
}

// markUnfit finds the rows that the broker would end the session for.
func (l *brokerLimits) markUnfit(rows []row) {
	if l.until.IsZero() || time.Now().After(l.until) {
		return
	}
	for i, r := range rows {
		switch {
		case r.fault != nil:
		case l.largest > 0 && len(r.record.Data) > l.largest:
			rows[i].fault = fmt.Errorf("a body of %d bytes, and the broker takes %d: raise its "+
				"max_message_size, then replay the event",
				len(r.record.Data), l.largest)
		case l.forbiddenTypes[r.record.Type]:
			rows[i].fault = fmt.Errorf("the broker's user may not publish %s: repair its topic "+
				"permissions, then replay the event",
				strings.ToValidUTF8(r.record.Type, "?"))
		}
	}
}
