package payments_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/eventstore"
	"github.com/quadrille-go/quadrille/postgres"
)

// frozen is a fact that only a newer release knows.
type frozen struct {
	Customer string `json:"customer"`
}

func (frozen) EventType() string { return "account.frozen" }
func (f frozen) Subject() string { return f.Customer }

// A client whose account cannot be read is told to come again, and why; the other accounts go on.
func TestAnAccountThatCannotBeReadAnswers503(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ damage, why string }{
		"a fact of a newer release": {"", "account/ada is in a form that this release cannot read"},
		"a changed fact": {`UPDATE eventstore SET payload = replace(payload::text, '1000', '9000')::json
			WHERE stream = 'account/ada' AND version = 2`,
			"the history of account/ada is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t)
			w.rich(1000)
			w.Want(w.Call("PUT", "/accounts/bob", euro), http.StatusOK)
			if c.damage != "" {
				w.DB.MustExec(c.damage)
			} else if err := postgres.InTx(t.Context(), w.DB, func(tx *sqlx.Tx) error {
				heads, err := eventstore.Heads(t.Context(), tx, "account/ada")
				if err != nil {
					return err
				}
				fact := events.Cause(events.Event{}, "/payments", time.Now(), frozen{"ada"})
				_, err = eventstore.Append(t.Context(), tx, "account/ada", heads["account/ada"], fact)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			answer := w.Want(w.Call("GET", "/accounts/ada", ""), http.StatusServiceUnavailable, c.why,
				"nothing was changed")
			if answer.Header.Get("Retry-After") == "" {
				t.Error("it does not say when to come again")
			}
			w.Want(w.Post("/accounts/ada/deposits", money(5)), http.StatusServiceUnavailable, c.why)
			w.Want(w.Call("POST", "/accounts/ada/closure", ""), http.StatusServiceUnavailable, c.why)
			w.Want(w.Call("GET", "/verifications", ""), http.StatusOK, `"customer":"ada"`, `"fits":false`,
				`"customer":"bob"`)
			w.Want(w.Post("/accounts/bob/deposits", money(5)), http.StatusCreated)
			if _, err := w.try(placed(events.NewID(), 10)); err == nil {
				t.Error("an order was decided on it")
			}
		})
	}
}
