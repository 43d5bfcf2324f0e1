// Package rabbit is the kit's way to RabbitMQ: supervised sessions, a publisher that knows what was
// confirmed, deliveries that can only be settled in the session they came through, the CloudEvents
// binding, and declaring a topology.
//
// It promises that a publishing is Confirmed only when every queue it was routed to has accepted
// it, and that an acknowledgement never settles another message: each session is a new connection
// and a new channel, and the driver's own recovery, which reuses delivery tags, stays off. It
// decides nothing about what to publish again or when to acknowledge: outbox and consumer do.
package rabbit
