package web

import (
	"slices"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/idempotency"
)

// WithKeys returns components with the one that keeps idempotency keys. Without one of the caller
// it keeps them for the default time.
func WithKeys(components []quadrille.Component) []quadrille.Component {
	if slices.ContainsFunc(components, func(c quadrille.Component) bool {
		_, is := c.(*idempotency.Keys)
		return is
	}) {
		return components
	}
	return append(slices.Clone(components), &idempotency.Keys{})
}
