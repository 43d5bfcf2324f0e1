package quadrille_test

import (
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/quadrille-go/quadrille/admin"
	"github.com/quadrille-go/quadrille/cli"
	"github.com/quadrille-go/quadrille/events"
	"github.com/quadrille-go/quadrille/internal/servertest"
)

// A parked event gets another body and is handled with it. The body that was published stays on
// record, its copies are duplicates, and of two operators who edit it at the same time only one
// changes what both have seen.
func TestParkedEventIsEdited(t *testing.T) {
	t.Parallel()
	broker, _ := servertest.Vhost(t)
	s, repaired := buggy(t, broker)
	run(t, s)
	endpoint := httptest.NewServer(s.Admin())
	defer endpoint.Close()
	publish(t, s, UserJoined{"1", "ada@exmaple.com"})
	becomes(t, s, 1, "pending WHERE due IS NULL")
	var history []admin.Event
	get(t, endpoint.URL+"/admin/history/1", "", 200, &history)
	id := history[0].ID
	expect := func(code int, text string, args ...string) {
		t.Helper()
		if got, out := commandLine(t, endpoint.URL,
			append([]string{"parked"}, args...)...); got != code ||
			!strings.Contains(out, text) {
			t.Errorf("%q: exit %d, want %d and %q:\n%s", args, got, code, text, out)
		}
	}
	expect(cli.ExitUsage, "must say why", "edit", id, "--set", "Email=ada@example.com")
	expect(cli.ExitUsage, "give the new body", "edit", id, "--reason", "a typo")
	expect(cli.ExitUsage, "there is no field", "edit", id, "--set", "a.b=1", "--reason", "a typo")
	expect(cli.ExitNotFound, "nothing is parked", "edit", events.NewID(), "--data", "{}", "--reason",
		"x")
	expect(1, "would refuse the new body", "edit", id, "--data", `{"Email":7}`, "--reason",
		"a typo")
	expect(1, "would refuse the new body", "edit", id, "--set", `ID=2`, "--reason",
		"another subject")

	client := editTwice(t, endpoint.URL, id)
	seen := admin.ParkedEvent{Body: history[0].Data}
	if _, err := client.Service("members").Edit(t.Context(), id, admin.EditRequest{Operator: "cleo",
		Reason: "late", Was: admin.Digest(seen.Body), Body: []byte(`{}`)}); err == nil ||
		!strings.Contains(err.Error(), "409") {
		t.Errorf("an edit of what is no longer there: %v", err)
	}
	expect(0, "+ {", "edit", id, "--set", "Email=ada@example.com", "--reason", "a typo")
	expect(0, "+ {", "edit", id, "--set", "Email=ada@example.com", "--reason", "a typo") // repeated
	expect(0, "had no field email before", "edit", id, "--set", "email=x", "--reason", "a typo")
	expect(0, "ada@exmaple.com", "show", id)
	if n := count(t, s, "repairs WHERE action = 'edit'"); n != 3 {
		t.Errorf("%d edits on record", n)
	}
	repaired.Store(true)
	expect(0, "1 redriven", "redrive", id, "--reason", "a typo")
	becomes(t, s, 1, "welcomed WHERE email = 'ada@example.com'")
	if code, out := commandLine(t, endpoint.URL, "replay", "members", id); code != 0 {
		t.Errorf("exit %d: %s", code, out)
	}
	becomes(t, s, 1, "welcomed")
	expect(0, "edit", "repairs")
	if n := count(t, s, `repairs WHERE edited = convert_to('{"ID":"1","Email":"ada@exmaple.com"}',
		'UTF8')`); n != 1 {
		t.Errorf("%d records have the body that was published", n)
	}
}

// editTwice lets two operators change the same body at the same time.
func editTwice(t *testing.T, address, id string) *admin.Client {
	t.Helper()
	client := &admin.Client{Services: []string{"members"},
		Replicas: func(string) ([]string, error) { return []string{address}, nil }}
	seen, err := client.Service("members").ParkedEvent(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var operators sync.WaitGroup
	results := make(chan error, 2)
	for _, name := range []string{"ada", "bob"} {
		operators.Go(func() {
			_, err := client.Service("members").Edit(t.Context(), id, admin.EditRequest{Operator: name,
				Reason: "a typo", Was: admin.Digest(seen.Body),
				Body: []byte(strings.ReplaceAll(string(seen.Body), "ada@exmaple", name+"@example"))})
			results <- err
		})
	}
	operators.Wait()
	if a, b := <-results, <-results; (a == nil) == (b == nil) {
		t.Errorf("two operators changed the same body: %v and %v", a, b)
	}
	return client
}
