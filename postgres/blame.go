package postgres

import (
	"errors"

	"github.com/lib/pq"
)

// Blameless tells whether err is about the database or about what others do in it, so that a
// transaction that met it need only wait: somebody holds a lock, resources have run out, or
// a statement was prepared before a migration. A statement that took too long is not among them,
// since its own values may be the reason.
func Blameless(err error) bool {
	answer, ok := errors.AsType[*pq.Error](err)
	if !ok {
		return false
	}
	switch state := string(answer.Code); state {
	case "55P03", "25006", "26000", "0A000": // lock not available, read-only, prepared before a migration
		return state != "0A000" || answer.Routine == "RevalidateCachedQuery"
	default:
		return len(state) == 5 && (state[:2] == "53" || state[:2] == "58") // resources, the system's I/O
	}
}
