package servertest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/localrun"
)

// brokerPrefix marks the vhosts and users of tests.
const brokerPrefix = "quadrille-test-"

// Vhost creates a vhost for this test, in which the administrator has all permissions. It returns
// the URL of the vhost and that of the management API. The vhost is deleted at the end of the test.
func Vhost(t testing.TB) (amqpURL, managementURL string) {
	t.Helper()
	s := Shared(t)
	return VhostOn(t, s.AMQPURL, s.ManagementURL), s.ManagementURL
}

// VhostOn is Vhost on other servers.
func VhostOn(t testing.TB, amqpURL, managementURL string) string {
	t.Helper()
	u, err := url.Parse(amqpURL)
	if err != nil || u.User == nil {
		t.Fatal("create a vhost for the test: the AMQP URL cannot be parsed, or has no user")
	}
	name := brokerPrefix + newName()
	manage(t, managementURL, http.MethodPut, "/api/vhosts/"+name, struct{}{})
	t.Cleanup(func() {
		if err := deleteResource(managementURL, "/api/vhosts/"+name); err != nil {
			t.Errorf("delete the vhost of the test: %v", err)
		}
	})
	manage(t, managementURL, http.MethodPut, "/api/permissions/"+name+"/"+
		url.PathEscape(u.User.Username()),
		permissions{".*", ".*", ".*"})
	u.Path = "/" + name
	return u.String()
}

type permissions struct {
	Configure string `json:"configure"`
	Write     string `json:"write"`
	Read      string `json:"read"`
}

// User creates a broker user with the given permissions (regular expressions, "" for none) in the
// vhost of amqpURL, and returns that URL with the new user. Users belong to the whole broker, so
// User adds a unique suffix to the name; the URL has the resulting name.
func User(t testing.TB, amqpURL, managementURL, name string, configure, write, read string) string {
	t.Helper()
	u, err := url.Parse(amqpURL)
	if err != nil {
		t.Fatalf("create the broker user %s: the AMQP URL cannot be parsed", name)
	}
	vhost := strings.TrimPrefix(u.Path, "/")
	if vhost == "" {
		vhost = "/"
	}
	password := rand.Text()
	account := brokerPrefix + name + "-" + newName()
	manage(t, managementURL, http.MethodPut, "/api/users/"+url.PathEscape(account),
		map[string]string{"password": password, "tags": ""})
	t.Cleanup(func() {
		if err := deleteResource(managementURL, "/api/users/"+url.PathEscape(account)); err != nil {
			t.Errorf("delete the broker user %s: %v", name, err)
		}
	})
	manage(t, managementURL, http.MethodPut, "/api/permissions/"+url.PathEscape(vhost)+"/"+
		url.PathEscape(account),
		permissions{configure, write, read})
	u.User = url.UserPassword(account, password)
	return u.String()
}

// newName returns a part of a name that no other test has.
func newName() string { return strings.ToLower(rand.Text()[:16]) }

func manage(t testing.TB, managementURL, method, path string, in any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := localrun.Manage(ctx, managementURL, method, path, in, nil); err != nil {
		t.Fatalf("prepare the broker for the test: %v", err)
	}
}

// deleteResource deletes an object of the broker, even after the context of the test has ended.
func deleteResource(managementURL, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return localrun.Manage(ctx, managementURL, http.MethodDelete, path, nil, nil)
}

// sweepBroker deletes the vhosts and users whose names match.
func sweepBroker(ctx context.Context, managementURL string, match func(name string) bool) error {
	for _, kind := range []string{"/api/vhosts", "/api/users"} {
		var found []struct {
			Name string `json:"name"`
		}
		if err := localrun.Manage(ctx, managementURL, http.MethodGet, kind, nil, &found); err != nil {
			return fmt.Errorf("find old test vhosts and users: %w", err)
		}
		for _, item := range found {
			if !match(item.Name) {
				continue
			}
			if err := localrun.Manage(ctx, managementURL, http.MethodDelete,
				kind+"/"+url.PathEscape(item.Name), nil, nil); err != nil {
				return fmt.Errorf("delete an old test vhost or user: %w", err)
			}
		}
	}
	return nil
}
