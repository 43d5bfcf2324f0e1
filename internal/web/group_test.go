package web_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/rs/zerolog"

	"github.com/quadrille-go/quadrille"
	"github.com/quadrille-go/quadrille/idempotency"
	"github.com/quadrille-go/quadrille/internal/web"
	"github.com/quadrille-go/quadrille/internal/web/webtest"
	"github.com/quadrille-go/quadrille/quadrilletest"
)

// commands is an API whose commands are texts. "poison" fails every command in its transaction.
// Each transaction sends to begun and then waits until gate is closed.
type commands struct {
	*webtest.Service
	t       *testing.T
	group   *web.Group[string]
	handler http.Handler
	begun   chan struct{}
	gate    chan struct{}
	running sync.WaitGroup
	mu      sync.Mutex
	answers map[string]int // key and command → status
}

func newCommands(t *testing.T) *commands {
	t.Helper()
	c := &commands{t: t, begun: make(chan struct{}, 100), gate: make(chan struct{}),
		answers: map[string]int{}}
	c.Service = webtest.Start(t, func(database string, log zerolog.Logger) (*quadrille.Service,
		http.Handler) {
		config := webtest.Config(database, log)
		config.Name = "tester"
		config.Migrations = map[string]fs.FS{"idempotency": idempotency.Migrations()}
		service, err := quadrille.New(config)
		if err != nil {
			t.Fatal(err)
		}
		c.group = web.NewGroup(service, c.take)
		c.handler = web.Handle(log, func(w http.ResponseWriter, r *http.Request) error {
			body, err := web.Read(w, r)
			if err != nil {
				return err
			}
			return c.group.Once(w, r, body, string(body))
		})
		return service, c.handler
	})
	_, err := c.DB.Exec(`CREATE TABLE took (command text, txid xid8 DEFAULT pg_current_xact_id())`)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *commands) take(ctx context.Context, tx *sqlx.Tx, commands []string) ([]web.Answer, error) {
	c.begun <- struct{}{}
	<-c.gate
	answers := make([]web.Answer, len(commands))
	for i, command := range commands {
		switch command {
		case "poison":
			return nil, errors.New("poison")
		case "panic":
			panic("at the effect")
		case "away":
			return nil, &net.OpError{Op: "read", Err: errors.New("connection reset")}
		case "full":
			return nil, &pq.Error{Code: "53300"} // too_many_connections
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO took (command) VALUES ($1)`, command); err != nil {
			return nil, err
		}
		answers[i] = web.Answer{Status: http.StatusCreated, Body: command}
	}
	return answers, nil
}

func (c *commands) submit(ctx context.Context, key, command string) {
	c.running.Go(func() {
		r := httptest.NewRequest("POST", "/", strings.NewReader(command)).WithContext(ctx)
		r.Header.Set("Idempotency-Key", key)
		a := answer(c.handler, r)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.answers[fmt.Sprint(key, " ", command, " ", a.Code)]++
	})
}

// busy begins the maximum of two transactions, so that the following requests wait.
func (c *commands) busy() {
	for i := range 2 {
		c.submit(c.t.Context(), fmt.Sprint("busy", i), "busy")
		<-c.begun
	}
}

// waits waits until n requests wait for a transaction.
func (c *commands) waits(n int) {
	c.t.Helper()
	quadrilletest.WaitFor(c.t, fmt.Sprint(n, " requests wait"), func() (bool, string) {
		return c.group.Waiting() == n, fmt.Sprint(c.group.Waiting())
	})
}

func (c *commands) open() { close(c.gate); c.running.Wait() }

func (c *commands) want(answer string, times int) {
	c.t.Helper()
	if c.answers[answer] != times {
		c.t.Errorf("answer %q: %d times, want %d; all answers: %v", answer, c.answers[answer], times,
			c.answers)
	}
}

// Requests that arrive while transactions run share one transaction, and each has its own effect
// and answer.
func TestRequestsThatComeTogetherShareATransaction(t *testing.T) {
	t.Parallel()
	c := newCommands(t)
	c.busy()
	for i := range 60 {
		c.submit(t.Context(), fmt.Sprint("k", i), fmt.Sprint("c", i))
	}
	c.waits(60)
	c.open()
	for i := range 60 {
		c.want(fmt.Sprintf("k%d c%d 201", i, i), 1)
	}
	if n := c.Int(`SELECT count(*) FROM took`); n != 62 {
		t.Errorf("%d effects", n)
	}
	if n := c.Int(`SELECT count(DISTINCT txid) FROM took WHERE command <> 'busy'`); n != 1 {
		t.Errorf("%d transactions, want 1", n)
	}
}

// What waits is taken in transactions of a bounded size.
func TestATransactionTakesNoMoreThanItsBound(t *testing.T) {
	t.Parallel()
	c := newCommands(t)
	c.busy()
	for i := range 150 {
		c.submit(t.Context(), fmt.Sprint("k", i), fmt.Sprint("c", i))
	}
	c.waits(150)
	c.open()
	if most := c.Int(`SELECT max(n) FROM (SELECT count(*) AS n
		FROM took GROUP BY txid) AS transactions`); most != 100 {
		t.Errorf("%d requests in one transaction", most)
	}
	if n := c.Int(`SELECT count(*) FROM took`); n != 152 {
		t.Errorf("%d effects", n)
	}
}

// A request that fails does not harm the others in its transaction.
func TestFailingRequestInAGroupFailsAlone(t *testing.T) {
	t.Parallel()
	c := newCommands(t)
	c.busy()
	c.submit(t.Context(), "a", "good")
	c.submit(t.Context(), "b", "poison")
	c.submit(t.Context(), "c", "good")
	c.submit(t.Context(), "d", "panic")
	c.waits(4)
	c.open()
	c.want("d panic 500", 1)
	c.want("a good 201", 1)
	c.want("b poison 500", 1)
	c.want("c good 201", 1)
	if n := c.Int(`SELECT count(*) FROM took WHERE command = 'good'`); n != 2 {
		t.Errorf("%d effects", n)
	}
	if n := c.Int(`SELECT count(*) FROM idempotency_keys WHERE key = 'b'`); n != 0 {
		t.Error("the failed request is stored")
	}
}

// While the database is away, or has no room, the requests of a transaction are not run one by one.
func TestAGroupAsksNoAbsentDatabaseAgain(t *testing.T) {
	t.Parallel()
	for _, problem := range []string{"away", "full"} {
		c := newCommands(t)
		c.busy()
		for i := range 5 {
			c.submit(t.Context(), fmt.Sprint("k", i), problem)
		}
		c.waits(5)
		c.open()
		for i := range 5 {
			c.want(fmt.Sprintf("k%d %s 503", i, problem), 1)
		}
		if n := len(c.begun); n != 1 {
			t.Errorf("%s: %d transactions, want 1", problem, n)
		}
	}
}

// Two requests with one key in one transaction have one effect, and so has a key that was used
// before. A request whose client has disconnected has none.
func TestGroupUsesAKeyOnce(t *testing.T) {
	t.Parallel()
	c := newCommands(t)
	c.busy()
	gone, leave := context.WithCancel(t.Context())
	c.submit(t.Context(), "twice", "same")
	c.submit(t.Context(), "twice", "same")
	c.submit(gone, "gone", "gone")
	c.waits(3)
	leave()
	c.waits(2)
	c.open()
	c.want("twice same 201", 1)
	c.want("twice same 409", 1)
	for _, command := range []string{"same", "other"} {
		c.submit(t.Context(), "twice", command)
		c.running.Wait()
	}
	c.want("twice same 201", 2)
	c.want("twice other 422", 1)
	if n := c.Int(`SELECT count(*) FROM took WHERE command = 'same'`); n != 1 ||
		c.Int(`SELECT count(*) FROM took WHERE command = 'gone'`) != 0 {
		t.Errorf("%d effects", n)
	}
}

// A transaction that hangs, for example on a silent connection, blocks other requests for at most
// the time limit of a request.
func TestHangingTransactionReleasesItsSlot(t *testing.T) {
	t.Parallel()
	c := newCommands(t)
	c.busy()
	c.running.Wait()
	c.want("busy0 busy 503", 1)
	c.want("busy1 busy 503", 1)
	c.submit(t.Context(), "k", "next")
	select {
	case <-c.begun:
	case <-time.After(quadrilletest.Timeout):
		t.Error("the next request is not run after the time limit of the hanging ones")
	}
	c.open()
	c.want("k next 201", 1)
}
