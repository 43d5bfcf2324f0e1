// Package rabbit connects the kit to RabbitMQ. It has supervised sessions, a publisher that learns
// the outcome of each publishing, deliveries that only their own session can acknowledge, the
// CloudEvents binding, and the declaration and audit of a topology.
//
// A publishing is Confirmed only if every queue to which it was routed has accepted it. An
// acknowledgement never settles another message: each session is a new connection with a new
// channel, and the driver's own recovery, which reuses delivery tags, stays off. The package does
// not decide what to publish again or when to acknowledge: outbox and consumer do.
package rabbit
