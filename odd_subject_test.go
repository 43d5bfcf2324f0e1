package quadrille_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/internal/servertest"
)

// The history of any subject can be read, whatever characters it has; of text that no database can
// store the endpoint does not say that the database is away.
func TestHistoryOfOddSubjects(t *testing.T) {
	t.Parallel()
	broker, _ := servertest.Vhost(t)
	s := members(t, database(t), broker)
	endpoint := httptest.NewServer(s.Admin())
	defer endpoint.Close()
	subjects := []string{"a/b", "a//b", "./a", "ü %?#&+", "%2F", "a\nb", "'; --"}
	for _, subject := range subjects {
		publish(t, s, UserJoined{subject, "ada@example.com"})
	}
	for _, subject := range subjects {
		var history []admin.Event
		get(t, endpoint.URL+"/admin/history/"+url.PathEscape(subject), "", http.StatusOK, &history)
		if len(history) != 1 || history[0].Subject != subject {
			t.Errorf("%q: %+v", subject, history)
		}
	}
	for _, path := range []string{"/admin/history/%00", "/admin/history/%ff", "/admin/parked/%00"} {
		get(t, endpoint.URL+path, "", http.StatusBadRequest, nil)
	}
}
