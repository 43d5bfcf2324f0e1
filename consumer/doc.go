// Package consumer is the runtime of a service: it turns deliveries into transactions of inbox,
// reaction and outbox, and acknowledges them afterwards. It is the only one that does.
//
// It promises at-least-once delivery with exactly-once effects: what a reaction writes through its
// State, or a handler through its transaction, happens once per event of an owner, whatever is
// delivered twice, late or in another order. An event whose reaction fails is tried again later and
// parked in the end, while others go on; a broken database or broker costs no attempt. Effects
// outside the database are only as good as the idempotency key that Call hands out.
//
// Decisions are apart from doing: a reaction is a pure function over a working set (State), the
// same in production, in unit tests and in package check.
package consumer
