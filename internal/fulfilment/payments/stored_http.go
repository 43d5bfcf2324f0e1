package payments

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/internal/web"
)

// readable tells a client that what is stored is in the way, and not the request, which may be made
// again with the same key: nothing has happened.
func readable(h web.Handler) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		err := h(w, r)
		stored, unreadable := errors.AsType[*eventstore.StoredError](err)
		misfit, damaged := errors.AsType[*eventstore.MismatchError](err)
		switch {
		case unreadable:
			return fmt.Errorf("%w: %w", web.Problemf(http.StatusServiceUnavailable,
				"%s is in a form that this release cannot read; nothing was changed, try again later",
				stored.Stream), err)
		case damaged:
			return fmt.Errorf("%w: %w", web.Problemf(http.StatusServiceUnavailable,
				"the history of %s is damaged and needs a person; nothing was changed, try again later",
				misfit.Stream), err)
		}
		return err
	}
}
