package quadrilleprom

import (
	"context"

	"github.com/quadrille-go/quadrille"
)

// CacheOf returns how Collector reads what waits, with another function that reads it.
func CacheOf(
	read func(context.Context) (quadrille.Backlog, error)) func() (quadrille.Backlog, bool) {
	return (&cache{read: read}).get
}
