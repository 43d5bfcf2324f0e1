package consumer_test

import (
	"fmt"
	"testing"

	"github.com/quadrille-go/quadrille/consumer/internal/consumertest"
)

// A migration changes the types of columns while a participant runs: what it has prepared, and what
// it knows of the columns, is outdated in every session, and no event suffers.
func TestMigrationUnderAParticipantCostsNoAttempt(t *testing.T) {
	t.Parallel()
	w := consumertest.New(t)
	w.Exec(`ALTER TABLE accounts ALTER COLUMN balance TYPE int; ALTER TABLE
		payments ALTER COLUMN amount TYPE int`)
	_, stop := w.Bank()
	const count = 60
	place := func(round int, amount int64) {
		for i := range count {
			w.PublishAs(consumertest.Shop, consumertest.Placed{Order: fmt.Sprint(round, "-", i),
				Customer: fmt.Sprint("c", i%7), Amount: amount})
		}
		w.Becomes(round*count, `SELECT count(*) FROM payments`)
	}
	place(1, 1)
	w.Exec(`ALTER TABLE accounts ALTER COLUMN balance TYPE bigint`)
	w.Exec(`ALTER TABLE payments ALTER COLUMN amount TYPE bigint`)
	place(2, 3_000_000_000) // it does not fit the old type
	w.Exec(`ALTER TABLE inbox ALTER COLUMN type TYPE varchar(200),
		ALTER COLUMN owner TYPE varchar(200)`)
	w.Exec(`ALTER TABLE outbox ALTER COLUMN aggregateid TYPE varchar(200)`)
	w.Exec(`ALTER TABLE pending ALTER COLUMN type TYPE varchar(200),
		ALTER COLUMN reason TYPE varchar(5000)`)
	place(3, 1)
	w.Becomes(3*count, outboxCount)
	stop()
	w.Drained()
	if n := w.Int(pendingCount); n != 0 {
		t.Errorf("%d events wait: %s", n, w.Diagnosis())
	}
}
