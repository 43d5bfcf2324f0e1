package orders_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quadrille-go/quadrille/internal/fulfilment/orders"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// post places an order under a key.
func (w env) post(body string, headers ...string) webtest.Answer {
	w.Helper()
	return w.Call("POST", "/orders", body, headers...)
}

func TestAKeyIsRequiredAndMustBeOne(t *testing.T) {
	t.Parallel()
	w := start(t)
	for _, headers := range [][]string{
		{}, {"Idempotency-Key", ""}, {"Idempotency-Key", `""`},
		{"Idempotency-Key", strings.Repeat("k", 256)},
		{"Idempotency-Key", "a\tb"}, {"Idempotency-Key", "ä"}, {"Idempotency-Key", `a"b`},
		{"Idempotency-Key", "a", "Idempotency-Key", "b"}, {"Idempotency-Key", "a", "Idempotency-Key",
			"a"},
	} {
		a := w.Want(w.post(order("ada"), headers...), http.StatusBadRequest, "Idempotency-Key")
		var p struct{ Type string }
		if w.Decode(a, &p); !strings.HasPrefix(p.Type, "https://") {
			t.Errorf("%q: no link to what is missing: %s", headers, a.Body)
		}
	}
	// A client that cannot be kept from it sends a control character.
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	b := order("ada")
	fmt.Fprintf(conn, "POST /orders HTTP/1.1\r\nHost: x\r\nIdempotency-Key: "+
		"a\x01b\r\nContent-Length: %d\r\n\r\n%s", len(b), b)
	if status, err := bufio.NewReader(conn).ReadString('\n'); err != nil ||
		!strings.Contains(status, " 400 ") {
		t.Errorf("a control character: %q, %v", status, err)
	}
	if n := w.Int(`SELECT count(*) FROM orders`); n != 0 {
		t.Errorf("%d orders", n)
	}
	for _, key := range []string{strings.Repeat("k", 255), `"` + strings.Repeat("q", 255) + `"`,
		"a b~!"} {
		w.Want(w.post(order("ada"), "Idempotency-Key", key), http.StatusCreated)
	}
}

func TestACompletedRequestIsReplayed(t *testing.T) {
	t.Parallel()
	w := start(t)
	first := w.Want(w.post(order("ada"), "Idempotency-Key", `"k1"`), http.StatusCreated)
	if first.Header.Get("Idempotency-Replayed") != "" {
		t.Error("the first answer says that it is a replay")
	}
	for _, key := range []string{`"k1"`, `k1`} {
		again := w.Want(w.post(order("ada"), "Idempotency-Key", key), http.StatusCreated)
		if again.Header.Get("Idempotency-Replayed") != "true" || again.Body != first.Body ||
			again.Header.Get("Location") != first.Header.Get("Location") {
			t.Errorf("replay %+v\nof %+v", again, first)
		}
	}
	w.Want(w.post(order("bob"), "Idempotency-Key", "k1"), http.StatusUnprocessableEntity,
		"another request")
	w.Want(w.post(order("ada")+" ", "Idempotency-Key", "k1"), http.StatusUnprocessableEntity)
	w.Want(w.post(order("ada"), "Idempotency-Key", "K1"), http.StatusCreated)
	if n := w.Int(`SELECT count(*) FROM orders`); n != 2 {
		t.Errorf("%d orders", n)
	}
}

func TestAKeyBelongsToItsClient(t *testing.T) {
	t.Parallel()
	const ada, eve = "a-token-of-16-characters", "another-token-of-16"
	w := env{webtest.On(t, webtest.Database(t, service), service, webtest.File(t, "ada "+ada+"\neve "+
		eve+"\n"))}
	w.Want(w.post(order("ada"), "Idempotency-Key", "k"), http.StatusUnauthorized)
	first := w.Want(w.post(order("ada"), "Idempotency-Key", "k", "Authorization", "Bearer "+ada),
		http.StatusCreated)
	other := w.Want(w.post(order("ada"), "Idempotency-Key", "k", "Authorization", "Bearer "+eve),
		http.StatusCreated)
	if other.Body == first.Body || other.Header.Get("Idempotency-Replayed") != "" {
		t.Errorf("eve sees %+v", other)
	}
	if n := w.Int(`SELECT count(DISTINCT client) FROM idempotency_keys`); n != 2 {
		t.Errorf("%d clients", n)
	}
}

func TestAHundredAtOnceWithOneKeyAreOneOrder(t *testing.T) {
	t.Parallel()
	w := start(t)
	var created, replayed, busy atomic.Int32
	var body atomic.Value
	webtest.Together(t, 100, func(int) error {
		a, err := w.Try(t.Context(), "POST", "/orders", order("ada"), "Idempotency-Key", "one")
		switch {
		case err != nil:
			return err
		case a.Status == http.StatusConflict && a.Header.Get("Retry-After") != "":
			busy.Add(1)
			return nil
		case a.Status == http.StatusCreated && a.Header.Get("Idempotency-Replayed") == "true":
			replayed.Add(1)
		case a.Status == http.StatusCreated:
			created.Add(1)
		default:
			return fmt.Errorf("%d %v %s", a.Status, a.Header, a.Body)
		}
		if before := body.Swap(a.Body); before != nil && before != a.Body {
			return fmt.Errorf("answers differ: %s and %s", before, a.Body)
		}
		return nil
	})
	t.Logf("%d created, %d replayed, %d told to wait", created.Load(), replayed.Load(), busy.Load())
	if n := w.Int(`SELECT count(*) FROM orders`); n != 1 || created.Load() != 1 {
		t.Errorf("%d orders, %d created", n, created.Load())
	}
}

// The session dies after the key was claimed and the order written, before or while it is
// committed: nothing of it stays, the client is told to come again, and the same key then works.
func TestACrashLeavesNoKeyBehind(t *testing.T) {
	t.Parallel()
	for name, trigger := range map[string]string{
		"before the commit": `CREATE TRIGGER dying AFTER INSERT ON idempotency_keys FOR EACH ROW EXECUTE
			FUNCTION die()`,
		"in the commit": `CREATE CONSTRAINT TRIGGER dying AFTER INSERT
			ON idempotency_keys DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die()`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t)
			w.exec(`CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
				'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'`)
			w.exec(trigger)
			a := w.Want(w.post(order("ada"), "Idempotency-Key", "k"), http.StatusServiceUnavailable)
			if a.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			w.exec(`DROP TRIGGER dying ON idempotency_keys`)
			if n := w.Int(`SELECT (SELECT count(*) FROM orders) + (SELECT count(*)
				FROM idempotency_keys) + (SELECT count(*) FROM pending)`); n != 0 {
				t.Errorf("%d rows are left of the crash", n)
			}
			again := w.Want(w.post(order("ada"), "Idempotency-Key", "k"), http.StatusCreated)
			if again.Header.Get("Idempotency-Replayed") != "" || w.Int(`SELECT count(*) FROM orders`) != 1 {
				t.Errorf("answer %+v", again)
			}
		})
	}
}

// A client that gives up while its request waits for a lock leaves nothing half done.
func TestAClientThatGoesAwayLeavesNothing(t *testing.T) {
	t.Parallel()
	w := start(t)
	tx := w.DB.MustBeginTx(t.Context(), nil)
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `LOCK TABLE orders IN EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan error, 1)
	go func() {
		_, err := w.Try(ctx, "POST", "/orders", order("ada"), "Idempotency-Key", "k")
		answered <- err
	}()
	const waiting = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
		AND wait_event_type = 'Lock'`
	becomes := func(want int64) {
		t.Helper()
		quadrilletest.WaitFor(t, "who waits for the lock", func() (bool, string) {
			n := w.Int(waiting)
			return n == want, fmt.Sprintf("%d, want %d", n, want)
		})
	}
	becomes(1)
	w.Want(w.post(order("ada"), "Idempotency-Key", "k"), http.StatusConflict, "in progress")
	cancel()
	if err := <-answered; err == nil {
		t.Error("the client that has gone got an answer")
	}
	becomes(0)
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	var v orders.View
	quadrilletest.WaitFor(t, "the key is free again", func() (bool, string) {
		a := w.post(order("ada"), "Idempotency-Key", "k")
		if a.Status != http.StatusCreated {
			return false, a.Body
		}
		w.Decode(a, &v)
		return true, ""
	})
	if n := w.Int(`SELECT count(*) FROM orders`); n != 1 || time.Since(v.PlacedAt) > time.Minute {
		t.Errorf("%d orders, the answered one %+v", n, v)
	}
}
