// Package events holds the mechanism of domain events: what an event is, how its payload becomes
// bytes and comes back, and which types a program knows.
//
// It promises that what Encode writes, Decode reads, and that Decode refuses what other programs
// read in several ways: duplicate keys, trailing data, invalid UTF-8, numbers that do not fit.
// Unknown fields are tolerated, so that a producer may add one.
//
// It names no payload: the types of a choreography live with the choreography (order fulfilment's
// in package fulfilment), and the types of any program work with every package of the kit. It does
// no I/O.
package events
