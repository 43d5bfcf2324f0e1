package events

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"strings"
)

// traceParent is version 00 of the header of W3C Trace Context.
var traceParent = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

// ValidTrace reports whether s is a traceparent of W3C Trace Context, version 00. An id of zeros
// only is not valid.
func ValidTrace(s string) bool {
	return traceParent.MatchString(s) && strings.Trim(s[3:35], "0") != "" &&
		strings.Trim(s[36:52], "0") != ""
}

// traceFrom returns the trace context of an event with this cause. It is that of the cause: a span
// of its own would be one that nobody records. Without a valid one a trace begins.
func traceFrom(cause string) string {
	if ValidTrace(cause) {
		return cause
	}
	var random [24]byte
	_, _ = rand.Read(random[:]) // it never fails: crypto/rand ends the program instead
	return "00-" + hex.EncodeToString(random[:16]) + "-" + hex.EncodeToString(random[16:]) + "-01"
}
