package boot

import (
	"fmt"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/internal/web/webtest"
)

// An impossible value is an error that names its setting.
func TestImpossibleValues(t *testing.T) {
	t.Parallel()
	empty := webtest.File(t, " \n")
	for name, values := range map[string][]string{
		"COUNTRIES":                   {",", " ", "Germany", "de", "DE;FR", "D\u0395"},
		"URL":                         {"http://127.0.0.1:1/orders", "127.0.0.1:1", "http://127.0.0.1"},
		"NAME_FILE":                   {empty, "/nope", t.TempDir()},
		"QUADRILLE_SIMULATORS_LISTEN": {"7709", "127.0.0.1:x", "127.0.0.1:99999", "127.0.0.1"},
	} {
		for _, value := range values {
			c := &Config{lookup: lookupIn(map[string]string{name: value})}
			var err error
			switch name {
			case "COUNTRIES":
				c.Countries(name, []string{"DE"})
			case "URL":
				c.hostOf(name, value)
			case "NAME_FILE":
				c.String("NAME", "otherwise")
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
	if err := simulators(t.Context(), []string{"health"}, lookupIn(nil)); err == nil ||
		!strings.Contains(fmt.Sprint(err), "healthcheck") {
		t.Errorf("an unknown argument: error %v, want one that names healthcheck", err)
	}
}
