// Package faults contains the slow tests of the outbox. They crash and stop servers and processes,
// fill queues, and write millions of rows. The package has no other code.
package faults
