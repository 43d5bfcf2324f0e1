// Package consumer is what an author types: the handlers of a service, their effects, policies and
// middleware. Package quadrille compiles them and runs them; see quadrille.Config.
//
// A handler is one of three: a function with SQL of its own (Handle), an outside call (Call), or
// the reactions of a Participant, which are pure functions over a working set of rows, the same in
// production, in unit tests and in package check.
//
// The engine that runs them promises at-least-once delivery with exactly-once effects: what a
// reaction writes through its State, or a handler through its transaction, happens once per event
// of an owner, whether it is delivered twice, late or in another order. An event whose reaction
// fails is tried again later and parked in the end, while others go on; a broken database or broker
// costs no attempt. Effects outside the database are only as good as the idempotency key that Call
// hands out.
package consumer
