package boot

import (
	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/consumer"
	"github.com/quadrille-go/quadrille/idempotency"
)

// Service returns what the environment says about every service: its servers, its log and its
// bounds.
func (c *Config) Service() quadrille.Config {
	return quadrille.Config{Database: c.Database, LeaderDatabase: c.leader, AMQP: c.AMQP, Log: c.Log,
		Tracer: c.traces.Tracer(), Migrate: c.migrate,
		OutboxKeep: c.keep, Bounds: consumer.Bounds{ReceiptHistory: c.receipts}}
}

// ServiceWithKeys is Service for a service whose API has idempotency keys.
func (c *Config) ServiceWithKeys() quadrille.Config {
	service := c.Service()
	service.Components = []quadrille.Component{&idempotency.Keys{Keep: c.keys}}
	return service
}
