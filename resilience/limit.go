package resilience

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/jmoiron/sqlx"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the files of the line "resilience".
func Migrations() fs.FS {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	return files
}

// The bounds of the limiter's table.
const (
	limitIdle  = time.Hour // a key that was not used for this long is deleted
	limitSweep = 1000      // one call in this many deletes such keys
)

// Limit is a rate limit that all replicas share. It keeps a token bucket for each key in
// PostgreSQL. It uses the generic cell rate algorithm, which needs one timestamp for each key and
// one statement for each call. Each key has its own bucket, so that a busy key takes nothing from
// the others.
type Limit struct {
	DB    *sqlx.DB
	Rate  float64 // calls per second, above 0
	Burst int     // calls at once after an idle time, at least 1
}

// takeSQL advances the time of a key by one interval, unless it is further ahead than the burst
// allows.
const takeSQL = `
INSERT INTO rate_limit AS r (key, next) VALUES ($1, clock_timestamp() + $2 * interval '1 second')
ON CONFLICT (key) DO UPDATE SET next = greatest(r.next,
	clock_timestamp()) + $2 * interval '1 second'
	WHERE r.next <= clock_timestamp() + $3 * interval '1 second'
RETURNING 1`

// limitErrorPause is the pause after an error of the database.
const limitErrorPause = time.Second

// Guard returns a guard that makes a call if the key has a token, and otherwise returns
// a NotMadeError with the time until it has one. While the database does not answer, no call is
// made, since the limit belongs to the peer and must not be exceeded.
func (l Limit) Guard(key string) Guard {
	return func(ctx context.Context, call func(context.Context) error) error {
		err := l.Take(ctx, key)
		if err != nil && !isNotMade(err) {
			err = NotMadeError{Why: err.Error(), After: limitErrorPause}
		}
		if err != nil {
			return err
		}
		return call(ctx)
	}
}

// Take takes a token of the key, or returns a NotMadeError if there is none.
func (l Limit) Take(ctx context.Context, key string) error {
	every := 1 / l.Rate
	ahead := every * float64(l.Burst-1)
	result, err := l.DB.ExecContext(ctx, takeSQL, key, every, ahead)
	if err != nil {
		return fmt.Errorf("take from rate limit: %w", err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 1 {
		if err == nil && rand.N(limitSweep) == 0 { // after a failure a later call deletes them
			_, _ = l.DB.ExecContext(ctx, `DELETE FROM rate_limit
				WHERE next < now() - $1 * interval '1 second'`, limitIdle.Seconds())
		}
		return wrap("take from rate limit", err)
	}
	var wait float64
	err = l.DB.GetContext(ctx, &wait, `SELECT coalesce(max(extract(epoch
		FROM next - clock_timestamp())), 0)::float8 FROM rate_limit WHERE key = $1`, key)
	if err != nil {
		return fmt.Errorf("read rate limit: %w", err)
	}
	return NotMadeError{
		Why:   fmt.Sprintf("%s is limited to %g calls per second", key, l.Rate),
		After: max(time.Millisecond, time.Duration((wait-ahead)*float64(time.Second))),
	}
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
