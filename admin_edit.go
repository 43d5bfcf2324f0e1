package quadrille

import (
	"bytes"
	"context"
	"net/http"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/internal/inbox"
)

func (o operator) Edit(ctx context.Context, id string, r admin.EditRequest) (admin.ParkedEvent,
	error) {
	p, found, err := o.findParked(ctx, id)
	if err != nil {
		return admin.ParkedEvent{}, err
	}
	conflict := admin.Problem{Status: http.StatusConflict}
	switch {
	case bytes.Equal(found.Body, r.Body):
		return o.ParkedEvent(ctx, id) // it is repeated
	case found.Kind == inbox.Evidence:
		conflict.Detail = "it is malformed or contradictory and can only be discarded: " + found.Reason
		return admin.ParkedEvent{}, conflict
	case admin.Digest(found.Body) != r.Was:
		conflict.Detail = "somebody else has changed its body meanwhile: look at it again"
		return admin.ParkedEvent{}, conflict
	}
	edited := found
	edited.Body = r.Body
	if err := p.consumer.Check(edited); err != nil {
		return admin.ParkedEvent{}, admin.Problem{Status: http.StatusUnprocessableEntity,
			Detail: "the service would refuse the new body: " + err.Error()}
	}
	done, err := inbox.NewEditor(p.inbox).Edit(ctx, r.Operator, r.Reason, found, r.Body)
	if err == nil && !done {
		conflict.Detail = "somebody else has changed or repaired it meanwhile: look at it again"
		err = conflict
	}
	if err != nil {
		return admin.ParkedEvent{}, err
	}
	o.logRepair(found, r.Operator, r.Reason, "edited")
	return o.ParkedEvent(ctx, id)
}
