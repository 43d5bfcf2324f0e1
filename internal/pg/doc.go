// Package pg gives every part of the kit its access to PostgreSQL: it opens a database with
// bounds on everything, runs transactions, classifies errors, applies migration lines, elects a
// leader among replicas, and reads the snapshot windows of a log in which rows commit late.
//
// A transaction has one of three outcomes, and the caller learns which: committed, rolled back, or
// unknown (ErrUnknownOutcome). The package writes no business SQL and never logs, and none of its
// errors contains a password.
package pg
