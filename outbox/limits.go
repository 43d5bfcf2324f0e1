package outbox

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/quadrille-go/quadrille/internal/rabbit"
)

const (
	limitsValidFor    = 5 * time.Minute // then the operator may have changed the broker's limits
	maxForbiddenTypes = 1000
	accessCode        = 403 // access refused
)

// brokerLimits are the limits that the broker named when it ended a session because of one row. The
// relay quarantines rows that exceed them without publishing them. Otherwise each such row would
// end two sessions, one to notice it and one to isolate it, and delay all other events every time.
type brokerLimits struct {
	largest        int             // bytes of a body; 0: unknown
	forbiddenTypes map[string]bool // event types that the broker's user may not publish
	until          time.Time       // the limits are valid until then
}

var (
	tooLarge      = regexp.MustCompile(`larger than (?:configured )?max size (\d+)`)
	forbiddenType = regexp.MustCompile(`access to topic '([^']*)' in exchange`)
)

// learn reports whether the error with which a session ended names a limit, and keeps that limit.
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

// markUnfit gives a fault to each row for which the broker would end the session.
func (l *brokerLimits) markUnfit(rows []row) {
	if l.until.IsZero() || time.Now().After(l.until) {
		return
	}
	for i, r := range rows {
		switch {
		case r.fault != nil:
		case l.largest > 0 && len(r.record.Data) > l.largest:
			rows[i].fault = fmt.Errorf("the event has %d bytes, and the broker accepts at most %d: "+
				"raise the broker's max_message_size, then replay the event",
				len(r.record.Data), l.largest)
		case l.forbiddenTypes[r.record.Type]:
			rows[i].fault = fmt.Errorf("the broker's user may not publish %s: correct the user's topic "+
				"permissions, then replay the event",
				strings.ToValidUTF8(r.record.Type, "?"))
		}
	}
}
