package rabbit_test

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quadrille-go/quadrille/internal/localrun"
	"github.com/quadrille-go/quadrille/internal/rabbit"
	"github.com/quadrille-go/quadrille/internal/servertest"
)

// The password of a file is read for each session.
func TestChangedPasswordIsReadAgain(t *testing.T) {
	t.Parallel()
	broker, management := servertest.Vhost(t)
	u, err := url.Parse(servertest.User(t, broker, management, "somebody", "", "", ""))
	must(t, err)
	path := filepath.Join(t.TempDir(), "password")
	password, _ := u.User.Password()
	must(t, os.WriteFile(path, []byte(password+"\n"), 0o600))
	u.User = url.User(u.User.Username())
	u.RawQuery = url.Values{"passwordfile": {path}}.Encode()
	must(t, rabbit.CheckURL(u.String()))
	open(t, u.String()).Close()

	must(t, localrun.Manage(t.Context(), management, http.MethodPut, "/api/users/"+
		url.PathEscape(u.User.Username()), map[string]string{"password": "hush 2", "tags": ""}, nil))
	if _, err := rabbit.Open(t.Context(), u.String(), "test"); !rabbit.NoAccess(err) {
		t.Errorf("with the old password: %v", err)
	}
	must(t, os.WriteFile(path, []byte("hush 2\n"), 0o600))
	open(t, u.String()).Close()

	for _, content := range []string{"", " \n"} {
		must(t, os.WriteFile(path, []byte(content), 0o600))
		if _, err := rabbit.Open(t.Context(), u.String(), "test"); err == nil ||
			!strings.Contains(err.Error(), "is empty") {
			t.Errorf("an empty file: %v", err)
		}
	}
	must(t, os.Remove(path))
	if _, err := rabbit.Open(t.Context(), u.String(), "test"); err == nil ||
		!strings.Contains(err.Error(), "read the password of the broker") {
		t.Errorf("no file: %v", err)
	}
}
