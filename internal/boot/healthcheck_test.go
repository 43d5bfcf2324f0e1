package boot

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/internal/servertest"
)

// The health check runs in the environment of the service, in which the service listens on 0.0.0.0.
func TestHealthcheck(t *testing.T) {
	tests := map[string]struct {
		ready int
		want  string
	}{
		"ready":     {http.StatusOK, ""},
		"not ready": {http.StatusServiceUnavailable, "/readyz answers 503"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "0.0.0.0:0")
			if err != nil {
				t.Fatal(err)
			}
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter,
				r *http.Request) {
				if r.URL.Path != "/readyz" || r.URL.RawQuery != "" {
					t.Errorf("the health check requested %s, want /readyz", r.URL)
				}
				w.WriteHeader(test.ready)
			}))
			_ = server.Listener.Close()
			server.Listener = listener
			server.Start()
			defer server.Close()
			env := map[string]string{"QUADRILLE_ORDERS_LISTEN": strings.Replace(listener.Addr().String(),
				"[::]", "0.0.0.0", 1)}
			err = command(t.Context(), "orders", []string{"healthcheck"}, lookupIn(env), nil, nil)
			if got := textOf(err); !strings.Contains(got, test.want) || (got == "") != (test.want == "") {
				t.Errorf("healthcheck returns %q, want %q", got, test.want)
			}
		})
	}
}

func TestHealthcheckWithoutAService(t *testing.T) {
	address := servertest.Addresses(t, 1)[0]
	for name, env := range map[string]map[string]string{
		"nobody listens": {"QUADRILLE_ORDERS_LISTEN": address},
		"no address":     {},
	} {
		if err := command(t.Context(), "orders", []string{"healthcheck"}, lookupIn(env),
			nil, nil); err == nil {
			t.Errorf("%s: the health check succeeds", name)
		}
	}
}

// If the service ignored a mistyped argument, it would start a second time instead of checking the
// first.
func TestUnknownArgument(t *testing.T) {
	for _, args := range [][]string{{"health"}, {"healthcheck", "now"}} {
		err := command(t.Context(), "orders", args, lookupIn(nil), nil, nil)
		if got := textOf(err); !strings.Contains(got, "healthcheck") {
			t.Errorf("%q: error %q, want one that names healthcheck", args, got)
		}
	}
}

func lookupIn(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { value, ok := env[name]; return value, ok }
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
