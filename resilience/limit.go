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

// Migrations are those of the line "resilience".
func Migrations() fs.FS {
	files, _ := fs.Sub(migrations, "migrations") // the name is constant and embedded: it cannot fail
	return files
}

// The bounds of the limiter's table.
const (
	limitIdle  = time.Hour // a key that was not used for so long is forgotten
	limitSweep = 1000      // one in so many calls looks for such keys
)

// Limit is a rate limit that all replicas share: a token bucket for each key in PostgreSQL, in the
// form of the generic cell rate algorithm, which needs one timestamp a key and one statement a
// call. Each key has its bucket, so a busy one takes nothing from the others.
type Limit struct {
	DB    *sqlx.DB
	Rate  float64 // calls a second, above 0
	Burst int     // calls at once after a rest, at least 1
}

// takeSQL moves the key's time on by one interval, unless it is further ahead than the burst
// allows.
const takeSQL = `
INSERT INTO rate_limit AS r (key, next) VALUES ($1, clock_timestamp() + $2 * interval '1 second')
ON CONFLICT (key) DO UPDATE SET next = greatest(r.next,
	clock_timestamp()) + $2 * interval '1 second'
	WHERE r.next <= clock_timestamp() + $3 * interval '1 second'
RETURNING 1`

// limitError is when to try again after the database could not be asked.
const limitError = time.Second

// Guard makes a call when the key has a token left; otherwise it returns a NotMadeError with the
// time until there is one. While the database cannot be asked no call is made: the limit is the
// peer's, not ours to drop.
func (l Limit) Guard(key string) Guard {
	return func(ctx context.Context, call func(context.Context) error) error {
		err := l.Take(ctx, key)
		if err != nil && !isNotMade(err) {
			err = NotMadeError{Why: err.Error(), After: limitError}
		}
		if err != nil {
			return err
		}
		return call(ctx)
	}
}

// Take takes a token of the key, or returns a NotMadeError.
func (l Limit) Take(ctx context.Context, key string) error {
	every := 1 / l.Rate
	ahead := every * float64(l.Burst-1)
	result, err := l.DB.ExecContext(ctx, takeSQL, key, every, ahead)
	if err != nil {
		return fmt.Errorf("take from rate limit: %w", err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 1 {
		if err == nil && rand.N(limitSweep) == 0 { // if it fails, another will
			_, _ = l.DB.ExecContext(ctx, `DELETE FROM rate_limit
				WHERE next < now() - $1 * interval '1 second'`, limitIdle.Seconds())
		}
		return wrap("take from rate limit", err)
	}
	var wait float64
	err = l.DB.GetContext(ctx, &wait, `SELECT coalesce(max(extract(epoch
		FROM next - clock_timestamp())), 0)::float8 FROM rate_limit WHERE key = $1`, key)
	if err != nil {
		return fmt.Errorf("ask rate limit: %w", err)
	}
	return NotMadeError{
		Why:   fmt.Sprintf("%s is limited to %g a second", key, l.Rate),
		After: max(time.Millisecond, time.Duration((wait-ahead)*float64(time.Second))),
	}
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
