package pg

import (
	"time"

	"github.com/lib/pq"
)

// suspicionInterval is the shortest time between two suspicions. Without it, an event whose value
// is refused would make the pool reconnect each time it is handled.
const suspicionInterval = time.Minute

// suspect reports whether a statement of the session may be outdated, and if so retires all
// sessions of the same generation.
func (c *conn) suspect() bool {
	if c.generation < c.pool.generation.Load() { // another session was first
		return true
	}
	now, last := time.Now().UnixNano(), c.pool.suspected.Load()
	if last != 0 && now-last < int64(suspicionInterval) ||
		!c.pool.suspected.CompareAndSwap(last, now) {
		return false
	}
	c.retire()
	return true
}

// retire marks the session, and all others of its generation, as unusable.
func (c *conn) retire() {
	c.unusable = true
	c.pool.generation.CompareAndSwap(c.generation, c.generation+1)
}

// outdatedError is the error of a statement that may have been prepared before a migration.
type outdatedError struct{ error }

func (o outdatedError) Unwrap() error { return o.error }

// outdated reports whether a statement failed because it was prepared before a migration, or in
// a session that has been replaced.
func outdated(pgErr *pq.Error) bool {
	switch pgErr.Code {
	case "0A000": // cached plan must not change result type
		return pgErr.Routine == "RevalidateCachedQuery"
	case "26000": // prepared statement does not exist
		return true
	}
	return false
}

// mayBeOutdated reports whether an error may come from the types that a statement's parameters had
// when it was prepared: a value is out of the range of the old type, or the new type lacks an
// operator. A value that does not fit its type at all counts only if the statement has succeeded
// before; otherwise the value is at fault.
func mayBeOutdated(pgErr *pq.Error, worked bool) bool {
	switch classOf(string(pgErr.Code)) {
	case "22":
		return worked || pgErr.Code == "22003" || pgErr.Code == "22001"
	case "42", "XX":
		return true
	}
	return false
}
