// Package faults is the tests of the outbox that take longer than a glance: they crash and stop
// servers and processes, fill queues, and write millions of rows. It has no code of its own.
package faults
