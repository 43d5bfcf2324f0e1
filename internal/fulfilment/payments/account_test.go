package payments_test

import (
	"context"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/jmoiron/sqlx"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/fulfilment"
	"github.com/quadrille-go/quadrille/internal/fulfilment/payments"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/postgres"
)

const ada = "account/ada"

func (w env) account() payments.Account {
	w.Helper()
	found, err := eventstore.Fold[payments.Account](w.Context(), w.DB, ada)
	if err != nil {
		w.Fatal(err)
	}
	return found[ada].State
}

func TestAClosedAccountTakesNothingButRefunds(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.Want(w.Call("POST", "/accounts/ada/closure", ""), http.StatusNotFound, "ada")
	w.rich(1000)
	id := events.NewID()
	w.react(placed(id, 300))
	for range 2 { // closing it again changes nothing
		w.Want(w.Call("POST", "/accounts/ada/closure", ""), http.StatusOK, `"closed":true`,
			`"balance":700`)
	}
	w.Want(w.Post("/accounts/ada/deposits", money(5)), http.StatusConflict, "is closed")
	w.Want(w.Call("PUT", "/accounts/ada", euro), http.StatusConflict, "is closed")
	published := w.react(placed(events.NewID(), 1))
	if len(published) != 1 ||
		published[0].Data.(fulfilment.PaymentDeclined).Reason != fulfilment.ReasonClosed {
		t.Errorf("said %+v", published)
	}
	w.react(cancelled(id))
	want := payments.Account{Customer: "ada", Currency: "EUR", Deposited: 1000, Balance: 1000,
		Closed: true}
	if got := w.account(); got != want || w.payment(id).State != payments.Refunded {
		t.Errorf("account %+v, payment %+v", got, w.payment(id))
	}
	if n := w.Int(`SELECT count(*) FROM eventstore WHERE type = 'account.closed'`); n != 1 {
		t.Errorf("closed %d times", n)
	}
}

// What was not withdrawn is not refunded: where the payment and the account disagree, nothing
// happens and a person hears why.
func TestWhatWasNotWithdrawnIsNotRefunded(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.rich(1000)
	id := events.NewID()
	w.DB.MustExec(`INSERT INTO payments VALUES ($1, 'captured', 'ada', 'EUR', 100, '', now(), '')`, id)
	if _, err := w.try(cancelled(id)); err == nil ||
		!strings.Contains(err.Error(), "was not withdrawn from the account of ada") {
		t.Errorf("error %v", err)
	}
	if w.balance() != 1000 || w.payment(id).State != payments.Captured {
		t.Errorf("balance %d, payment %+v", w.balance(), w.payment(id))
	}
}

// Two withdrawals of more than half of it: never do both succeed.
func TestTwoWithdrawalsNeverBothSucceedOnOneBalance(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.rich(1000)
	for round := range 20 {
		ids := []string{events.NewID(), events.NewID()}
		webtest.Together(t, 2, func(i int) error {
			_, err := w.try(placed(ids[i], 600))
			return err
		})
		a, b := w.payment(ids[0]), w.payment(ids[1])
		if w.balance() != 400 || (a.State == payments.Captured) == (b.State == payments.Captured) {
			t.Fatalf("round %d: balance %d, payments %+v and %+v", round, w.balance(), a, b)
		}
		w.react(cancelled(ids[0]), cancelled(ids[1]))
	}
	if n, err := eventstore.Verify(t.Context(), w.DB, ada); err != nil || n != 42 {
		t.Errorf("verified %d events, %v", n, err)
	}
}

// What decides never reads the projections: without them, everything goes on but the lists.
func TestNoDecisionReadsAProjection(t *testing.T) {
	t.Parallel()
	w := start(t)
	w.DB.MustExec(`DROP TABLE account_balances_1, account_statement_1 CASCADE`)
	w.rich(1000)
	id := events.NewID()
	w.react(placed(id, 300))
	w.react(cancelled(id))
	w.Want(w.Call("GET", "/accounts/ada", ""), http.StatusOK, `"balance":1000`)
	w.Want(w.Call("GET", "/accounts/ada/history", ""), http.StatusOK, "withdrawal.refunded")
	w.Want(w.Call("POST", "/accounts/ada/closure", ""), http.StatusOK)
	if s := w.Call("GET", "/accounts", "").Status; s < 500 {
		t.Errorf("the list is answered with %d", s)
	}
}

// Accounts that were rows become streams with the same money.
func TestAccountsThatWereRowsBecomeStreams(t *testing.T) {
	t.Parallel()
	db, migrate := asRows(t)
	db.MustExec(`INSERT INTO accounts VALUES ('ada', 'EUR', 1000, 650), ('bob', 'JPY', 0, 0)`)
	for state, amount := range map[string]int{"captured": 350, "refunded": 200, "declined": 7000} {
		db.MustExec(
			`INSERT INTO payments VALUES (gen_random_uuid(), $1, 'ada', 'EUR', $2, '', now(), '')`, state,
			amount)
	}
	db.MustExec(`INSERT INTO payments VALUES (gen_random_uuid(), 'captured', 'ada', 'EUR', 5, '',
		now(), 'card')`)
	if err := migrate(); err != nil {
		t.Fatal(err)
	}
	found, err := eventstore.Fold[payments.Account](t.Context(), db, ada, "account/bob")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]payments.Account{
		ada:           {Customer: "ada", Currency: "EUR", Deposited: 1000, Balance: 650, Withdrawn: 350},
		"account/bob": {Customer: "bob", Currency: "JPY"},
	}
	for stream, account := range want {
		n, err := eventstore.Verify(t.Context(), db, stream)
		if found[stream].State != account || err != nil || n != found[stream].Version {
			t.Errorf("%s: %+v, verified %d, %v", stream, found[stream], n, err)
		}
	}
}

// A deposit that a replica of the release before makes meanwhile fails, and is not forgotten.
func TestNoDepositIsForgottenInTheMigration(t *testing.T) {
	t.Parallel()
	db, migrate := asRows(t)
	db.MustExec(`INSERT INTO accounts SELECT 'customer' || g, 'EUR', 100, 100 FROM generate_series(1,
		3000) g`)
	migrated := make(chan error)
	go func() { migrated <- migrate() }()
	deposited := 300_000
	for {
		if _, err := db.Exec(`UPDATE accounts SET deposited = deposited + 7, balance = balance + 7
			WHERE customer = 'customer17'`); err != nil {
			break // the table is gone
		}
		deposited += 7
	}
	if err := <-migrated; err != nil {
		t.Fatal(err)
	}
	var stored int
	if err := db.Get(&stored, `SELECT sum((payload ->> 'amount')::bigint) FROM eventstore
		WHERE type = 'funds.deposited'`); err != nil || stored != deposited {
		t.Errorf("%d deposited, %d stored, %v", deposited, stored, err)
	}
}

// An account that does not add up is not moved over silently.
func TestAnAccountThatDoesNotAddUpStopsTheMigration(t *testing.T) {
	t.Parallel()
	db, migrate := asRows(t)
	db.MustExec(`INSERT INTO accounts VALUES ('ada', 'EUR', 1000, 650)`)
	if err := migrate(); err == nil ||
		!strings.Contains(err.Error(), "the account of ada has 650, but 1000 of its deposits are left") {
		t.Errorf("error %v", err)
	}
}

// asRows is a database from before accounts were event-sourced, and what migrates it.
func asRows(t *testing.T) (db *sqlx.DB, migrate func() error) {
	t.Helper()
	all, old := migrations(t)
	url := servertest.Database(t, "accounts as rows", func(ctx context.Context, url string) error {
		if err := postgres.Migrate(ctx, url, "eventstore", eventstore.Migrations()); err != nil {
			return err
		}
		return postgres.Migrate(ctx, url, "payments", old)
	})
	db, err := postgres.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db, func() error { return postgres.Migrate(t.Context(), url, "payments", all) }
}

// migrations returns those of the service, and those from before accounts were event-sourced.
func migrations(t *testing.T) (all, old fs.FS) {
	t.Helper()
	s, _ := service(webtest.NoDatabase, zerolog.Nop())
	all = s.Config().Migrations["payments"]
	before := fstest.MapFS{}
	for _, name := range []string{"001_payments.sql", "002_cards.sql"} {
		data, err := fs.ReadFile(all, name)
		if err != nil {
			t.Fatal(err)
		}
		before[name] = &fstest.MapFile{Data: data}
	}
	return all, before
}
