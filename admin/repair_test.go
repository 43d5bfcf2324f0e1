package admin_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/admin"
)

// The record names the operator whom a program has authenticated, and not only the one that the
// request claims.
func TestTheRecordNamesWhoIsKnown(t *testing.T) {
	t.Parallel()
	h := admin.Handler(fake{}, func(err error) admin.Problem { return admin.Problem{Status: 500} })
	for _, c := range []struct{ known, claimed, want string }{
		{"", "ada@laptop", "ada@laptop"}, {"ops", "", "ops"}, {"ops", "ops", "ops"},
		{"ops", "ada@laptop", "ops (ada@laptop)"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/admin/parked/redrive",
			strings.NewReader(`{"ids":["1"],"operator":"`+c.claimed+`"}`))
		if c.known != "" {
			r = r.WithContext(admin.WithOperator(r.Context(), c.known))
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if !slices.Contains(strings.Split(w.Body.String(), `"`), c.want) {
			t.Errorf("%+v: %s", c, w.Body)
		}
	}
}
