package web

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"
)

// Concurrency is the default of how many requests of the API are handled at the same time. Each may
// hold a connection to the database, of which there are fewer, so that more would only wait there.
const Concurrency = 256

// turnTimeout is how long a request waits for its turn. A client that waits longer gives up soon,
// and its request would be handled for nobody.
const turnTimeout = 500 * time.Millisecond

// withTurns handles at most n requests at the same time. One that gets no turn is answered 503 with
// Retry-After, and has had no effect. Its body is read before, so that a slow client takes no turn.
func withTurns(n int, h http.Handler) http.Handler {
	turns := semaphore.NewWeighted(int64(n))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), turnTimeout)
		defer cancel()
		if err := turns.Acquire(ctx, 1); err != nil {
			p := Problemf(http.StatusServiceUnavailable, "the service is busy: repeat the request later")
			if r.Context().Err() != nil {
				p = incomplete()
			}
			WriteProblem(w, p)
			return
		}
		defer turns.Release(1)
		h.ServeHTTP(w, r)
	})
}
