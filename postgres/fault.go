package postgres

import "errors"

// DatabaseFault tells whether err is about the database or about what others do in it, so that a
// transaction that met it need only wait: somebody holds a lock, resources have run out, or
// a statement was prepared before a migration. A statement that took too long is not among them,
// since its own values may be the reason.
func DatabaseFault(err error) bool {
	answer := answerOf(err)
	switch {
	case answer == nil:
		return errors.As(err, new(outdatedError))
	// lock not available, read-only
	case outdated(answer), answer.Code == "55P03", answer.Code == "25006":
		return true
	}
	class := classOf(string(answer.Code))
	return class == "53" || class == "58" // resources, the system's I/O
}
