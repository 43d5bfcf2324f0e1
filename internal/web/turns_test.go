package web_test

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/web"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// With as many requests in progress as may be, the next one is answered 503 with Retry-After, while
// health and metrics are served. When a request has ended, others are handled again.
func TestOverloadIsAnsweredAndRecovers(t *testing.T) {
	t.Parallel()
	const most = 2
	tokens, err := web.LoadTokens("")
	if err != nil {
		t.Fatal(err)
	}
	begun, goOn := make(chan struct{}, 10), make(chan struct{})
	api := http.NewServeMux()
	api.HandleFunc("POST /slow", func(w http.ResponseWriter, _ *http.Request) {
		begun <- struct{}{}
		<-goOn
		w.WriteHeader(http.StatusNoContent)
	})
	server := httptest.NewServer(web.Mux(plainService(t), tokens, api, most))
	defer server.Close()
	client := &http.Client{Timeout: 30 * time.Second} // longer than a turn is waited for
	call := func(method, path string) (status int, retryAfter string) {
		request, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		response, err := client.Do(request)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		_ = response.Body.Close()
		return response.StatusCode, response.Header.Get("Retry-After")
	}
	var clients sync.WaitGroup
	for range most {
		clients.Go(func() {
			if status, _ := call("POST", "/slow"); status != http.StatusNoContent {
				t.Errorf("a request that had its turn: %d", status)
			}
		})
	}
	for range most {
		select {
		case <-begun:
		case <-time.After(quadrilletest.Timeout):
			t.Fatal("a request did not begin")
		}
	}
	if status, after := call("POST", "/slow"); status != http.StatusServiceUnavailable || after == "" {
		t.Errorf("one more request: %d, Retry-After %q", status, after)
	}
	for _, path := range []string{"/healthz", "/metrics"} {
		if status, _ := call("GET", path); status != http.StatusOK {
			t.Errorf("%s while all are busy: %d", path, status)
		}
	}
	close(goOn)
	clients.Wait()
	if status, _ := call("POST", "/slow"); status != http.StatusNoContent {
		t.Errorf("a request when others have ended: %d", status)
	}
}
