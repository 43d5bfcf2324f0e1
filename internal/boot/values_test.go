package boot

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/internal/web/webtest"
)

// An impossible value is an error that names its setting.
func TestImpossibleValues(t *testing.T) {
	t.Parallel()
	empty := webtest.File(t, " \n")
	for name, values := range map[string][]string{
		"QUADRILLE_SHIPPING_COUNTRIES": {",", " ", "Germany", "de", "DE;FR", "D\u0395"},
		"QUADRILLE_PLAIN_URL":          {"http://127.0.0.1:1/orders", "127.0.0.1:1", "http://127.0.0.1"},
		"QUADRILLE_TOKEN_FILE":         {empty, "/nope", t.TempDir()},
		"QUADRILLE_SIMULATORS_LISTEN":  {"7709", "127.0.0.1:x", "127.0.0.1:99999", "127.0.0.1"},
	} {
		for _, value := range values {
			c := &Config{name: "plain", lookup: lookupIn(map[string]string{name: value})}
			var err error
			switch name {
			case "QUADRILLE_SHIPPING_COUNTRIES":
				c.Countries(name, []string{"DE"})
			case "QUADRILLE_PLAIN_URL":
				c.hostOf(name, value)
			case "QUADRILLE_TOKEN_FILE":
				c.String("QUADRILLE_TOKEN")
			default:
				err = simulators(t.Context(), nil, c.lookup)
			}
			if err == nil && len(c.errs) > 0 {
				err = c.errs[0]
			}
			if err == nil || !strings.HasPrefix(err.Error(), name+": ") {
				t.Errorf("%s=%q: %v", name, value, err)
			}
		}
	}
	c := &Config{lookup: lookupIn(map[string]string{"QUADRILLE_SHIPPING_COUNTRIES": "DE, FR,,US"})}
	if got := c.Countries("QUADRILLE_SHIPPING_COUNTRIES", nil); len(c.errs) != 0 ||
		!slices.Equal(got, []string{"DE", "FR", "US"}) {
		t.Errorf("%v, %v", got, c.errs)
	}
	if err := simulators(t.Context(), []string{"health"}, lookupIn(nil)); err == nil ||
		!strings.Contains(fmt.Sprint(err), "healthcheck") {
		t.Errorf("an unknown argument: error %v, want one that names healthcheck", err)
	}
}
