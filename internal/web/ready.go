package web

import (
	"context"
	"net/http"

	"github.com/quadrille-go/quadrille"
)

// ready answers 200 if the database is available, which the API needs. The broker and the consumer
// are only shown, because the API works without them, unless the request has full=1.
func ready(w http.ResponseWriter, r *http.Request, service *quadrille.Service) {
	ctx, cancel := context.WithTimeout(r.Context(), probeTimeout)
	defer cancel()
	full := r.URL.Query().Get("full") == "1"
	state := map[string]string{"status": "ready", "database": "ok", "broker": "ok", "consumer": "ok"}
	status := http.StatusOK
	fail := func(part, reason string, required bool) {
		state[part] = reason
		if required {
			state["status"], status = "not ready", http.StatusServiceUnavailable
		}
	}
	if err := service.Ready(ctx); err != nil {
		fail("database", "not available or not migrated", true)
	}
	if !service.Connected() {
		fail("broker", "not connected, or the topology is not applied", full)
	}
	if err := service.Healthy(); err != nil {
		fail("consumer", "does not consume; see the log and quadrille_consumer_session_ends_total",
			full)
	}
	_ = Write(w, status, state)
}
