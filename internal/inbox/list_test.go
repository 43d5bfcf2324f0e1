package inbox_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/quadrille-go/quadrille/internal/inbox"
)

// A page of the list has sizes instead of bodies, and all pages together have each event once.
func TestParkedIsListedInPagesWithoutBodies(t *testing.T) {
	t.Parallel()
	db := database(t)
	in := inbox.New(db, "test")
	const events = 7
	for i := range events {
		add(t, db, in, fmt.Sprint("key-", i), "user.joined", 0, true)
	}
	seen := map[string]bool{}
	pages := 0
	for after := ""; pages == 0 || after != ""; pages++ {
		list, next, err := in.ListParked(t.Context(), after, 3)
		if err != nil || len(list) > 3 {
			t.Fatalf("%d events in a page of 3 (%v)", len(list), err)
		}
		for _, p := range list {
			found, err := in.Find(t.Context(), p.Key)
			if err != nil || p.Size != int64(len(found.Body)) {
				t.Errorf("%s has the size %d, want %d (%v)", p.Key, p.Size, len(found.Body), err)
			}
			seen[p.Key] = true
		}
		after = next
	}
	if len(seen) != events || pages != 3 {
		t.Errorf("%d events in %d pages", len(seen), pages)
	}
	if _, _, err := in.ListParked(t.Context(), "yesterday", 3); !errors.Is(err, inbox.ErrNotFound) {
		t.Errorf("an invalid cursor: %v", err)
	}
}
