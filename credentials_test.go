package quadrille_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/internal/servertest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// A password that is wrong, or a virtual host that does not exist, ends a service with an error
// that names the setting and holds no password: waiting would not heal it.
func TestBrokerThatRefusesTheServiceEndsIt(t *testing.T) {
	t.Parallel()
	broker, _ := servertest.Vhost(t)
	for name, change := range map[string]func(u *url.URL){
		"another password": func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "hush") },
		"another user":     func(u *url.URL) { u.User = url.UserPassword("nobody", "hush") },
		"another vhost":    func(u *url.URL) { u.Path = "/nowhere" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, err := url.Parse(broker)
			if err != nil {
				t.Fatal(err)
			}
			change(u)
			s := members(t, database(t), u.String())
			ctx, cancel := context.WithTimeout(t.Context(), quadrilletest.Timeout)
			defer cancel()
			err = s.Run(ctx)
			if !errors.Is(err, quadrille.ErrMisconfigured) || !strings.Contains(err.Error(), "AMQP: ") ||
				strings.Contains(err.Error(), "hush") {
				t.Errorf("run: %v", err)
			}
		})
	}
}
