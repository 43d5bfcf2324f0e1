package postgres

import (
	"time"

	"github.com/lib/pq"
)

// suspicion is how long after one no other statement is suspected: an event with a value that is
// refused must not make a pool connect again each time.
const suspicion = time.Minute

// suspect tells whether a statement of the session may be suspected of being outdated, and then
// takes all sessions of its time out of use.
func (c *conn) suspect() bool {
	if c.generation < c.pool.generation.Load() { // another was first
		return true
	}
	now, last := time.Now().UnixNano(), c.pool.suspected.Load()
	if last != 0 && now-last < int64(suspicion) || !c.pool.suspected.CompareAndSwap(last, now) {
		return false
	}
	c.retire()
	return true
}

// retire takes the session, and all that are as old, out of use.
func (c *conn) retire() {
	c.spoiled = true
	c.pool.generation.CompareAndSwap(c.generation, c.generation+1)
}

// outdatedError is what a statement failed with that may have been prepared before a migration.
type outdatedError struct{ error }

func (o outdatedError) Unwrap() error { return o.error }

// outdated tells whether a statement was prepared before a migration, or in a session that is not
// this one any more.
func outdated(answer *pq.Error) bool {
	switch answer.Code {
	case "0A000": // cached plan must not change result type
		return answer.Routine == "RevalidateCachedQuery"
	case "26000": // prepared statement does not exist
		return true
	}
	return false
}

// mayBeOutdated tells whether an error may come from the types that a statement's parameters had
// when it was prepared: a value that is out of the range of the old type, or an operator that the
// new one lacks. A value that is no value of its type is the statement's own fault, unless others
// have been before.
func mayBeOutdated(answer *pq.Error, worked bool) bool {
	switch classOf(string(answer.Code)) {
	case "22":
		return worked || answer.Code == "22003" || answer.Code == "22001"
	case "42", "XX":
		return true
	}
	return false
}
