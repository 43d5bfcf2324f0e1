package pg

import "errors"

// DatabaseFault reports whether err comes from the state of the database or from other
// transactions, so that the transaction only has to run again: another one holds a lock, resources
// have run out, or a statement was prepared before a migration. A statement that took too long is
// excluded, since its own values may be the reason.
func DatabaseFault(err error) bool {
	pgErr := serverError(err)
	switch {
	case pgErr == nil:
		return errors.As(err, new(outdatedError))
	// lock not available, read-only
	case outdated(pgErr), pgErr.Code == "55P03", pgErr.Code == "25006":
		return true
	}
	class := classOf(string(pgErr.Code))
	return class == "53" || class == "58" // resources, the system's I/O
}
