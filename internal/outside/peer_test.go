package outside_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille/internal/outside"
)

// What an answer means: done, a definite no, or trouble after which nobody knows.
func TestAnswersAreToldApart(t *testing.T) {
	t.Parallel()
	const done, no, problem = "done", "no", "trouble"
	for name, c := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"done":                        {201, `{"id":"1"}`, done},
		"done without words":          {204, ``, done},
		"the answer comes twice":      {201, `{"id":"1"}{"id":"1"}`, done},
		"a refusal":                   {402, `{"reason":"broke"}`, no},
		"a refusal without words":     {422, ``, no},
		"still under way":             {409, `{}`, problem},
		"too many":                    {429, `{}`, problem},
		"out of order":                {503, `{}`, problem},
		"moved, and it answers there": {302, ``, problem},
		"moved for good":              {308, ``, problem},
		"no such path":                {404, `{}`, problem},
		"a request that is no good":   {400, `{}`, problem},
		"a credential that has ended": {401, `{}`, problem},
		"a page instead of an answer": {200, `<html>`, problem},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var elsewhere atomic.Bool
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/elsewhere" {
					elsewhere.Store(true)
					_, _ = w.Write([]byte(`{}`))
					return
				}
				if r.Header.Get("Idempotency-Key") != "k" {
					t.Error("without its key")
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			defer server.Close()
			peer := outside.New("peer", server.URL, time.Minute, zerolog.Nop())
			defer peer.Close()
			err := peer.Post(t.Context(), "/charges", "k", map[string]string{"order_id": "1"})
			got := done
			if refused, ok := errors.AsType[outside.RefusedError](err); ok {
				got = no
				if name == "a refusal" && refused.Reason != "broke" {
					t.Errorf("reason %q", refused.Reason)
				}
			} else if err != nil {
				got = problem
			}
			if got != c.want || elsewhere.Load() {
				t.Errorf("%s (%v), want %s; asked elsewhere: %t", got, err, c.want, elsewhere.Load())
			}
		})
	}
}
