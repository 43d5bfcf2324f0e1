package idempotency

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
)

// DefaultKeep is how long keys are kept when Keys.Keep is not set. Clients repeat a request within
// seconds or minutes; a day also covers one that was switched off over night.
const DefaultKeep = 24 * time.Hour

// The bounds of deleting old keys.
const (
	forgetEvery  = time.Minute
	forgetAtOnce = 1000                  // keys in one statement
	forgetPause  = 10 * time.Millisecond // between statements, for what else the database does
)

// Keys is the component of a service that has the table of the keys and deletes old ones. A request
// that is repeated after that time takes effect again. Each service needs its own, by pointer.
type Keys struct {
	// Keep is how long the answer to a request is kept; default DefaultKeep.
	Keep time.Duration

	db  *sqlx.DB
	log zerolog.Logger
}

var _ quadrille.Component = (*Keys)(nil)

// Migrations returns those of the package.
func (k *Keys) Migrations() map[string]fs.FS {
	return map[string]fs.FS{"idempotency": Migrations()}
}

// Open refuses a time that is negative.
func (k *Keys) Open(_ context.Context, h quadrille.Host) error {
	if k.Keep < 0 {
		return fmt.Errorf("%w: idempotency.Keys.Keep is %s: it must not be negative",
			quadrille.ErrMisconfigured, k.Keep)
	}
	k.db, k.log = h.DB, h.Log
	return nil
}

// Run deletes old keys until ctx is done. Replicas may do it at the same time.
func (k *Keys) Run(ctx context.Context) {
	for tick := time.NewTicker(forgetEvery); ; {
		if err := k.forget(ctx); err != nil && ctx.Err() == nil {
			k.log.Warn().Err(err).Msg("old idempotency keys cannot be deleted, the next pass tries again")
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
	}
}

// forget deletes all old keys, in batches.
func (k *Keys) forget(ctx context.Context) error {
	for {
		result, err := k.db.ExecContext(ctx, `DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(
			SELECT ctid FROM idempotency_keys WHERE created_at < now() - $1 * interval '1 second'
			ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED))`,
			cmp.Or(k.Keep, DefaultKeep).Seconds(), forgetAtOnce)
		if err != nil {
			return fmt.Errorf("delete old keys: %w", err)
		}
		n, err := result.RowsAffected()
		if err != nil || n < forgetAtOnce {
			return err
		}
		pause := time.NewTimer(forgetPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
	}
}
