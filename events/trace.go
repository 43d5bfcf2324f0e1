package events

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
)

// traceParent is version 00 of the header of W3C Trace Context.
var traceParent = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

// ValidTrace reports whether s is a traceparent of W3C Trace Context, version 00.
func ValidTrace(s string) bool { return traceParent.MatchString(s) }

// childTrace keeps the trace of parent and gives it a span of its own; without a valid parent a
// trace begins.
func childTrace(parent string) string {
	var random [24]byte
	_, _ = rand.Read(random[:]) // it never fails: crypto/rand ends the program instead
	span := hex.EncodeToString(random[16:])
	if ValidTrace(parent) {
		return parent[:36] + span + parent[52:]
	}
	return "00-" + hex.EncodeToString(random[:16]) + "-" + span + "-01"
}
