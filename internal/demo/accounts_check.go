package demo

import (
	"context"
	"fmt"
	"strings"

	"github.com/quadrille-go/quadrille/admin"
)

// rebuildAll rebuilds the projections while orders are in progress.
func (d *player) rebuildAll(ctx context.Context) (string, error) {
	var lines []string
	for _, name := range projectionNames() {
		p, err := Rebuild(ctx, d.Env, name, func(admin.Projection) {})
		if err != nil {
			return "", err
		}
		lines = append(lines, fmt.Sprintf("%s was rebuilt from %d events while orders were placed",
			p.Name, p.Done))
	}
	return strings.Join(lines, ", "), nil
}

// checkAccounts verifies every account: its chain of hashes, its snapshot and its rows in the
// rebuilt projections.
func (d *player) checkAccounts(ctx context.Context) (violations []string, err error) {
	list, err := verifyAll(ctx, d.Env, nil)
	if err != nil {
		return nil, err
	}
	for _, v := range list {
		if v.Misfit != nil {
			violations = append(violations, v.Misfit.Error())
		}
		violations = append(violations, v.Disagree...)
	}
	if len(list) < 2 {
		violations = append(violations,
			fmt.Sprintf("only %d accounts were verified, want those of both customers", len(list)))
	}
	return violations, nil
}
