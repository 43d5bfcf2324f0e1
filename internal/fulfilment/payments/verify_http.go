package payments

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/internal/web"
)

// Verified is what came of looking through an account.
type Verified struct {
	Customer string `json:"customer"`
	Events   int64  `json:"events"`
	Fits     bool   `json:"fits"`
	// the first event that does not fit the chain
	Misfit *eventstore.MismatchError `json:"misfit,omitempty"`
	// what is derived from the stream, and is not what it should be
	Disagree []string `json:"disagree,omitempty"`
}

// verify recomputes the account's chain of hashes, and compares what is derived from the stream
// with it.
func (a api) verify(w http.ResponseWriter, r *http.Request) error {
	customer, err := web.Name(r, "customer")
	if err != nil {
		return err
	}
	db, err := a.service.DB(r.Context())
	if err != nil {
		return err
	}
	v, err := verified(r.Context(), db, customer)
	if err == nil && v.Misfit == nil && v.Events == 0 {
		return web.NotFound("account of", customer)
	}
	if err != nil {
		return err
	}
	return web.Write(w, http.StatusOK, v)
}

// The bounds of a page of verifications: each account is read as a whole.
const (
	defaultVerified = 20
	maxVerified     = 100
)

// verifyPage verifies accounts in the order of their names. It goes by the streams themselves: a
// projection may have lost an account.
func (a api) verifyPage(w http.ResponseWriter, r *http.Request) error {
	limit, err := web.Page(r, defaultVerified, maxVerified)
	if err != nil {
		return err
	}
	after, err := customerAfter(r)
	if err != nil {
		return err
	}
	db, err := a.service.DB(r.Context())
	if err != nil {
		return err
	}
	streams, err := web.GetAll[string](r.Context(), a.service, `SELECT stream FROM eventstore_streams
		WHERE stream > $1 AND stream LIKE 'account/%'
		ORDER BY stream LIMIT $2`, streamOf(after), limit)
	if err != nil {
		return err
	}
	page := struct {
		Accounts []Verified `json:"accounts"`
		Next     string     `json:"next,omitzero"` // pass it as after
	}{Accounts: []Verified{}}
	for _, stream := range streams {
		v, err := verified(r.Context(), db, eventstore.KeyOf(stream))
		if err != nil {
			return err
		}
		page.Accounts = append(page.Accounts, v)
	}
	if len(streams) == limit {
		page.Next = eventstore.KeyOf(streams[limit-1])
	}
	return web.Write(w, http.StatusOK, page)
}

// verified looks through one account.
func verified(ctx context.Context, db *sqlx.DB, customer string) (v Verified, err error) {
	v.Customer = customer
	v.Events, err = eventstore.Verify(ctx, db, streamOf(customer))
	if errors.As(err, &v.Misfit) {
		return v, nil
	}
	if err != nil || v.Events == 0 {
		return v, err
	}
	v.Disagree, err = disagreements(ctx, db, customer)
	// it must not hide the other accounts of a page
	if unreadable, ok := errors.AsType[*eventstore.StoredError](err); ok {
		v.Disagree, err = []string{"nothing could be compared: " + unreadable.Error()}, nil
	}
	v.Fits = len(v.Disagree) == 0
	return v, err
}

// behindFor is how long a projection may lack an event before that is no delay any more.
const behindFor = time.Minute

// disagreements compares the snapshot and both projections with the events, where they are as far.
func disagreements(ctx context.Context, db *sqlx.DB, customer string) (found []string, err error) {
	replayed, err := eventstore.Replay[Account](ctx, db, streamOf(customer))
	if err != nil {
		return nil, err
	}
	folded, err := eventstore.Fold[Account](ctx, db, streamOf(customer))
	if err != nil {
		return nil, err
	}
	truth, cached := replayed[streamOf(customer)], folded[streamOf(customer)]
	if cached.Version == truth.Version && cached.State != truth.State {
		found = append(found, fmt.Sprintf("with the snapshot the account is %+v, by its events %+v",
			cached.State, truth.State))
	}
	var rows []struct {
		Source  string `db:"source"`
		Version int64  `db:"version"`
		Balance int64  `db:"balance"`
		Old     bool   `db:"old"` // the last event
	}
	err = db.SelectContext(ctx, &rows, `SELECT p.source, coalesce(p.version, 0) AS version,
		coalesce(p.balance, 0) AS balance, e.recorded_at < now() - $3 * interval '1 second' AS old
		FROM eventstore AS e, LATERAL (
			SELECT 'account_balances' AS source, max(version) AS version, max(balance) AS balance
				FROM account_balances WHERE customer = $2
			UNION ALL (SELECT 'account_statement', version, balance FROM account_statement
				WHERE customer = $2 ORDER BY version DESC LIMIT 1)
		) AS p WHERE e.stream = $1 AND e.version = $4`, streamOf(customer), customer, behindFor.Seconds(),
		truth.Version)
	if err != nil {
		return nil, fmt.Errorf("read projections: %w", err)
	}
	for _, r := range rows {
		switch {
		case r.Version == truth.Version && r.Balance != truth.State.Balance:
			found = append(found, fmt.Sprintf("%s has a balance of %d, by its events it is %d: rebuild it",
				r.Source, r.Balance, truth.State.Balance))
		case r.Version < truth.Version && r.Old:
			found = append(found,
				fmt.Sprintf("%s is at version %d of %d: is it stuck? See the log, or rebuild it", r.Source,
					r.Version, truth.Version))
		}
	}
	return found, nil
}
