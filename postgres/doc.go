// Package postgres holds what every part of the kit needs of PostgreSQL: opening a database with
// bounds on everything, one way to run a transaction, the classes of its errors, migration lines,
// a leader among replicas, and the snapshot window that reads a log in which rows commit late.
//
// It promises that a transaction has one of three outcomes and says which: committed, rolled back,
// or unknown (ErrUnknownOutcome). It writes no business SQL. It never logs, and none of its errors
// holds a password.
package postgres
